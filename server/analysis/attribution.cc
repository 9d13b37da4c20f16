#include "server/analysis/attribution.h"

#include <utility>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/encoder_directions.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/logit_directions.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"
#include "server/model/weights.h"

namespace cupola::analysis {
namespace {

using enum model::HookKind;

// The norm that reads a decomposition's residual.
model::HookPoint ScaleOf(const Decomposition& d,
                         const model::ModelConfig& config) {
  if (d.layer == config.n_layers) return {kFinalScale};
  return {d.mlp_input ? kLn2Scale : kLn1Scale, d.layer};
}

const model::Norm& NormOf(const model::Model& model,
                          const model::HookPoint& scale) {
  if (scale.kind == kFinalScale) return model.weights().final_norm;
  const model::Block& block = model.weights().blocks[scale.layer];
  return scale.kind == kLn1Scale ? block.ln1 : block.ln2;
}

at::Tensor Centred(const at::Tensor& rows, const model::ModelConfig& config) {
  if (config.norm != model::NormKind::kLayerNorm) return rows;
  return rows - rows.mean(-1, /*keepdim=*/true);
}

storage::Array Part(const at::Tensor& all, int64_t begin, int64_t rows) {
  return ToArray(all.narrow(0, begin, rows), storage::DType::kFloat32);
}

}  // namespace

absl::StatusOr<LatentReading> ReadingOf(const model::HookPoint& hook_in,
                                        const dictionary::Manifest& manifest,
                                        const model::ModelConfig& config) {
  RETURN_IF_ERROR(CheckLinearEncoder(manifest));
  const int layer = hook_in.layer;
  switch (hook_in.kind) {
    case kResidPre:
      return LatentReading{.layer = layer};
    case kResidPost:
      return LatentReading{.layer = layer + 1};
    case kResidMid:
    case kMlpIn:
      return LatentReading{.layer = layer, .mlp_input = true};
    case kLn1Normalized:
    case kLn1Out:
      return LatentReading{.layer = layer,
                           .scale = model::HookPoint{kLn1Scale, layer},
                           .gain = hook_in.kind == kLn1Out};
    case kLn2Normalized:
    case kLn2Out:
      return LatentReading{.layer = layer,
                           .mlp_input = true,
                           .scale = model::HookPoint{kLn2Scale, layer},
                           .gain = hook_in.kind == kLn2Out};
    case kFinalNormalized:
    case kFinalOut:
      return LatentReading{.layer = config.n_layers,
                           .scale = model::HookPoint{kFinalScale},
                           .gain = hook_in.kind == kFinalOut};
    case kMlpPost:
      if (config.gated_mlp) {
        return absl::InvalidArgumentError(
            "latents: the neurons of a gated MLP are no piecewise linear "
            "function of its input");
      }
      return LatentReading{.layer = layer,
                           .mlp_input = true,
                           .scale = model::HookPoint{kLn2Scale, layer},
                           .gain = true,
                           .neurons = true};
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "latents: the dictionary reads ", model::HookName(hook_in),
          "; accepted: hook_resid_pre, hook_resid_mid, hook_resid_post, "
          "hook_mlp_in, ln1 or ln2.hook_normalized, mlp.hook_in, "
          "mlp.hook_post, attn.hook_z and the final norm's"));
  }
}

AttributionAnalysis::AttributionAnalysis(
    std::shared_ptr<const dictionary::Dictionary> dictionary,
    model::HookPoint hook_in, AttributionQuery query,
    const model::ModelConfig& config)
    : dictionary_(std::move(dictionary)),
      hook_in_(hook_in),
      query_(std::move(query)),
      config_(config) {
  if (query_.target == AttributionTarget::kLatents) {
    auto reading = ReadingOf(hook_in_, dictionary_->manifest(), config_);
    if (reading.ok()) reading_ = *reading;
  }
}

storage::Digest AttributionAnalysis::Identity(const storage::Digest& dictionary,
                                              dictionary::Half half,
                                              const AttributionQuery& query) {
  const Decomposition& d = query.decomposition;
  storage::Hasher hasher("attribution/1");
  hasher.AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInt(static_cast<int64_t>(d.level))
      .AddInt(d.layer)
      .AddInt(d.mlp_input)
      .AddBytes(d.split.has_value() ? model::HookName(*d.split) : "")
      .AddInt(static_cast<int64_t>(query.target))
      .AddInts(query.tokens.data(), query.tokens.size())
      .AddInts(query.incorrect.data(), query.incorrect.size())
      .AddInt(query.gain)
      .AddInts(query.latents.data(), query.latents.size())
      .AddBytes(query.inactive.bytes)
      .AddInts(query.vectors.shape.data(), query.vectors.shape.size())
      .AddBytes(query.vectors.bytes)
      .AddInt(query.apply_norm);
  return hasher.Finish();
}

std::optional<model::HookPoint> AttributionAnalysis::Scale() const {
  if (query_.target == AttributionTarget::kTokens) {
    return model::HookPoint{kFinalScale};
  }
  if (query_.target == AttributionTarget::kLatents) return reading_->scale;
  if (!query_.apply_norm) return std::nullopt;
  return ScaleOf(query_.decomposition, config_);
}

std::set<model::HookPoint> AttributionAnalysis::captures() const {
  std::set<model::HookPoint> hooks =
      ComponentHooks(query_.decomposition, config_);
  if (const auto scale = Scale(); scale.has_value()) hooks.insert(*scale);
  const bool reads_input = query_.decomposition.split.has_value() ||
                           (reading_.has_value() && reading_->neurons);
  if (reads_input) hooks.insert(hook_in_);
  return hooks;
}

AttributionAnalysis::Directions AttributionAnalysis::LatentDirections(
    const model::Model& model) const {
  auto [rows, bias] = EncoderDirectionsOf(*dictionary_, query_.latents);
  if (reading_->neurons) return {rows, at::zeros_like(bias)};
  if (!reading_->scale.has_value()) return {rows, bias};
  const model::Norm& norm = NormOf(model, *reading_->scale);
  if (reading_->gain && norm.weight.defined()) {
    if (norm.bias.defined()) {
      bias = bias + at::mv(rows, norm.bias.to(at::kFloat));
    }
    rows = rows * norm.weight.to(at::kFloat);
  }
  return {Centred(rows, config_), bias};
}

AttributionAnalysis::Directions AttributionAnalysis::DirectionsOf(
    const model::Model& model) const {
  if (query_.target == AttributionTarget::kLatents) {
    return LatentDirections(model);
  }
  if (query_.target == AttributionTarget::kTokens) {
    auto logits = model::LogitDirectionsOf(model, query_.tokens, query_.gain);
    if (!query_.incorrect.empty()) {
      const auto wrong =
          model::LogitDirectionsOf(model, query_.incorrect, query_.gain);
      logits.rows = logits.rows - wrong.rows;
      logits.bias = logits.bias - wrong.bias;
    }
    return {logits.rows, logits.bias};
  }
  const at::TensorOptions options =
      at::TensorOptions().dtype(at::kFloat).device(model.options().device);
  at::Tensor rows = query_.target == AttributionTarget::kVectors
                        ? ViewOf(query_.vectors).to(options.device())
                        : at::eye(config_.d_model, options);
  if (query_.apply_norm) rows = Centred(rows, config_);
  return {rows, at::zeros({rows.size(0)}, options)};
}

absl::StatusOr<at::Tensor> AttributionAnalysis::ThroughNeurons(
    const Pass& pass, const std::vector<Placed>& sequences,
    Directions* directions) const {
  const model::Block& block = pass.model->weights().blocks[hook_in_.layer];
  ASSIGN_OR_RETURN(const at::Tensor post,
                   GatherRows(pass, hook_in_, sequences));
  const at::Tensor all_fires = (post > 0).to(at::kFloat).unsqueeze(1);
  at::Tensor W_in = block.mlp_in.Weight().to(at::kFloat);  // [d_model, d_mlp]
  if (block.ln2.weight.defined()) {
    W_in = W_in * block.ln2.weight.to(at::kFloat).unsqueeze(-1);
  }
  at::Tensor mean;
  if (!query_.inactive.shape.empty()) {
    mean = ViewOf(query_.inactive).to(post.device());
  }
  // [rows, n, d_mlp] exists for a few rows at a time only.
  constexpr int64_t kChunkValues = int64_t{1} << 24;
  const int64_t chunk =
      std::max<int64_t>(1, kChunkValues / directions->rows.numel());
  std::vector<at::Tensor> projected, silent;
  for (int64_t begin = 0; begin < all_fires.size(0); begin += chunk) {
    RETURN_IF_ERROR(pass.poll());
    const at::Tensor fires =
        all_fires.narrow(0, begin, std::min(chunk, all_fires.size(0) - begin));
    projected.push_back(at::matmul(fires * directions->rows, W_in.t()));
    if (!mean.defined()) continue;
    // onto [components, d_mlp]
    silent.push_back(
        at::matmul((1 - fires) * directions->rows, mean.t()).transpose(1, 2));
  }
  directions->rows = Centred(at::cat(projected), config_);
  return silent.empty() ? at::Tensor() : at::cat(silent);
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
AttributionAnalysis::Run(const Pass& pass,
                         const std::vector<Placed>& sequences) const {
  const Decomposition& decomposition = query_.decomposition;
  Directions directions = DirectionsOf(*pass.model);
  at::Tensor silent;
  if (reading_.has_value() && reading_->neurons) {
    ASSIGN_OR_RETURN(silent, ThroughNeurons(pass, sequences, &directions));
  }
  at::Tensor reconstruction;
  if (decomposition.split.has_value()) {
    ASSIGN_OR_RETURN(const at::Tensor x, GatherRows(pass, hook_in_, sequences));
    ASSIGN_OR_RETURN(const dictionary::SparseRows features,
                     dictionary_->Encode(x, {}));
    ASSIGN_OR_RETURN(reconstruction, dictionary_->Decode(features, x));
  }
  ASSIGN_OR_RETURN(at::Tensor values,
                   ProjectComponents(pass, decomposition, sequences,
                                     directions.rows, reconstruction));
  ASSIGN_OR_RETURN(
      const at::Tensor residual,
      GatherRows(pass, ResidualOf(decomposition, config_), sequences));
  at::Tensor total =
      DotDirections(residual.to(at::kFloat).unsqueeze(1), directions.rows)
          .squeeze(1);
  if (const auto hook = Scale(); hook.has_value()) {
    ASSIGN_OR_RETURN(const at::Tensor scale,
                     GatherRows(pass, *hook, sequences));
    total = total / scale;
    values = values / scale.unsqueeze(-1);
  }
  if (silent.defined()) {
    values = values + silent;
    total = total + silent.sum(1);
  }
  std::vector<std::vector<storage::Array>> records;
  int64_t begin = 0;
  for (const Placed& placed : sequences) {
    const int64_t rows = RowCount(*placed.sequence);
    records.push_back({Part(values, begin, rows), Part(total, begin, rows),
                       ToArray(directions.bias, storage::DType::kFloat32)});
    begin += rows;
  }
  return records;
}

}  // namespace cupola::analysis
