#include "server/analysis/attribution.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "ATen/ATen.h"
#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/encoder_directions.h"
#include "server/analysis/row_chunks.h"
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

// The record of a sequence without rows.
std::vector<storage::Array> Empty(int64_t rows, int64_t components, int64_t n) {
  const auto zeros = [](at::IntArrayRef shape) {
    return ToArray(at::zeros(shape), storage::DType::kFloat32);
  };
  return {zeros({rows, components, n}), zeros({rows, n}), zeros({n})};
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
    model::HookPoint hook_in, std::vector<SplitDictionary> splits,
    AttributionQuery query, const model::ModelConfig& config)
    : dictionary_(std::move(dictionary)),
      hook_in_(hook_in),
      splits_(std::move(splits)),
      query_(std::move(query)),
      config_(config) {
  if (query_.target == AttributionTarget::kLatents) {
    auto reading = ReadingOf(hook_in_, dictionary_->manifest(), config_);
    if (reading.ok()) reading_ = *reading;
  }
}

storage::Digest AttributionAnalysis::Identity(
    const storage::Digest& dictionary, dictionary::Half half,
    const std::vector<storage::Digest>& splits, const AttributionQuery& query) {
  const Decomposition& d = query.decomposition;
  storage::Hasher hasher("attribution/2");
  hasher.AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInt(static_cast<int64_t>(d.level))
      .AddInt(d.layer)
      .AddInt(d.mlp_input)
      .AddInt(splits.size());
  for (size_t i = 0; i < splits.size(); ++i) {
    hasher.AddDigest(splits[i]).AddBytes(model::HookName(d.splits[i]));
  }
  hasher.AddInt(static_cast<int64_t>(query.target))
      .AddInt(query.tokens)
      .AddInt(query.differences)
      .AddInt(query.gain)
      .AddInts(query.latents.data(), query.latents.size())
      .AddBytes(query.inactive.bytes)
      .AddBytes(query.reference.bytes)
      .AddInts(query.vectors.shape.data(), query.vectors.shape.size())
      .AddBytes(query.vectors.bytes)
      .AddInt(query.apply_norm)
      .AddInt(query.mean);
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
  if (reading_.has_value() && reading_->neurons) hooks.insert(hook_in_);
  for (const SplitDictionary& split : splits_) hooks.insert(split.hook_in);
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

AttributionAnalysis::Directions AttributionAnalysis::FixedDirections(
    const model::Model& model) const {
  if (query_.target == AttributionTarget::kTokens) return {};
  if (query_.target == AttributionTarget::kLatents) {
    return LatentDirections(model);
  }
  const at::TensorOptions options =
      at::TensorOptions().dtype(at::kFloat).device(model.options().device);
  at::Tensor rows = query_.target == AttributionTarget::kVectors
                        ? ViewOf(query_.vectors).to(options.device())
                        : at::eye(config_.d_model, options);
  if (query_.apply_norm) rows = Centred(rows, config_);
  return {rows, at::zeros({rows.size(0)}, options)};
}

AttributionAnalysis::Directions AttributionAnalysis::TokenDirections(
    const model::Model& model, const std::vector<Placed>& sequences) const {
  // Each pair of lists once; usually all sequences bring the same.
  std::map<std::vector<std::vector<int64_t>>, int64_t> known;
  std::vector<int64_t> by_row, by_sequence;
  for (const Placed& placed : sequences) {
    const int64_t mine =
        known.emplace(placed.sequence->lists, known.size()).first->second;
    by_sequence.push_back(mine);
    by_row.insert(by_row.end(), RowCount(*placed.sequence), mine);
  }
  std::vector<int64_t> right(known.size() * query_.tokens), wrong = right;
  for (const auto& [lists, number] : known) {
    const int64_t begin = number * query_.tokens;
    absl::c_copy(lists[kTokensList], right.begin() + begin);
    absl::c_copy(lists[kIncorrectList], wrong.begin() + begin);
  }
  auto logits = model::LogitDirectionsOf(model, right, query_.gain);
  if (query_.differences) {
    const auto others = model::LogitDirectionsOf(model, wrong, query_.gain);
    logits.rows = logits.rows - others.rows;
    logits.bias = logits.bias - others.bias;
  }
  if (known.size() == 1) return {logits.rows, logits.bias};
  const auto of = [&](const at::Tensor& all,
                      const std::vector<int64_t>& which) {
    return all.unflatten(0, {-1, query_.tokens})
        .index_select(0, at::tensor(which, at::kLong).to(all.device()));
  };
  return {of(logits.rows, by_row), of(logits.bias, by_sequence)};
}

absl::StatusOr<at::Tensor> AttributionAnalysis::ThroughNeurons(
    const Pass& pass, const std::vector<Placed>& sequences,
    Directions* directions) const {
  const model::Block& block = pass.model->weights().blocks[hook_in_.layer];
  ASSIGN_OR_RETURN(const at::Tensor post,
                   GatherRows(pass, hook_in_, sequences));
  const at::Tensor fires = (post > 0).to(at::kFloat).unsqueeze(1);
  at::Tensor W_in = block.mlp_in.Weight().to(at::kFloat);  // [d_model, d_mlp]
  if (block.ln2.weight.defined()) {
    W_in = W_in * block.ln2.weight.to(at::kFloat).unsqueeze(-1);
  }
  at::Tensor mean;  // [components, d_mlp]
  if (!query_.inactive.shape.empty()) {
    mean = ViewOf(query_.inactive).to(post.device());
  } else if (!query_.reference.shape.empty()) {
    mean = at::mm(ViewOf(query_.reference).to(post.device()), W_in);
  }
  at::Tensor silent;  // onto [components, d_mlp]
  if (mean.defined()) {
    silent =
        at::matmul((1 - fires) * directions->rows, mean.t()).transpose(1, 2);
  }
  directions->rows =
      Centred(at::matmul(fires * directions->rows, W_in.t()), config_);
  return silent;
}

absl::StatusOr<std::vector<at::Tensor>> AttributionAnalysis::Reconstructions(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  std::vector<at::Tensor> reconstructions;
  for (const auto& [dictionary, hook_in] : splits_) {
    RETURN_IF_ERROR(pass.poll());
    ASSIGN_OR_RETURN(const at::Tensor x, GatherRows(pass, hook_in, sequences));
    ASSIGN_OR_RETURN(const dictionary::SparseRows features,
                     dictionary->Encode(x, {}));
    ASSIGN_OR_RETURN(at::Tensor reconstruction,
                     dictionary->Decode(features, x));
    reconstructions.push_back(std::move(reconstruction));
  }
  return reconstructions;
}

absl::StatusOr<AttributionAnalysis::Values> AttributionAnalysis::Attribute(
    const Pass& pass, const std::vector<Placed>& sequences,
    Directions directions) const {
  const Decomposition& decomposition = query_.decomposition;
  at::Tensor silent;
  if (reading_.has_value() && reading_->neurons) {
    ASSIGN_OR_RETURN(silent, ThroughNeurons(pass, sequences, &directions));
  }
  ASSIGN_OR_RETURN(const std::vector<at::Tensor> reconstructions,
                   Reconstructions(pass, sequences));
  ASSIGN_OR_RETURN(at::Tensor values,
                   ProjectComponents(pass, decomposition, sequences,
                                     directions.rows, reconstructions));
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
  return Values{values, total};
}

int64_t AttributionAnalysis::RowsAtOnce(int64_t n) const {
  // What a row takes: its values, its own directions, and what these are on
  // neurons or in a head's place.
  const bool neurons = reading_.has_value() && reading_->neurons;
  const int64_t widths = config_.d_model + (neurons ? 2 * config_.d_mlp : 0);
  const int64_t values =
      2 * n * (ComponentCount(query_.decomposition, config_) + widths) +
      config_.n_heads * config_.d_model;
  constexpr int64_t kChunkValues = int64_t{1} << 25;
  return std::max<int64_t>(1, kChunkValues / values);
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
AttributionAnalysis::Run(const Pass& pass,
                         const std::vector<Placed>& sequences) const {
  const Directions fixed = FixedDirections(*pass.model);
  const int64_t n = fixed.rows.defined() ? fixed.rows.size(0) : query_.tokens;
  // Of each sequence: its rows' values and totals (or their sums), its bias.
  struct Parts {
    std::vector<at::Tensor> values, totals;
    at::Tensor bias;
  };
  std::vector<Parts> parts(sequences.size());
  std::deque<Sequence> cut;
  for (const RowChunk& chunk : ChunkRows(sequences, RowsAtOnce(n), &cut)) {
    RETURN_IF_ERROR(pass.poll());
    const Directions directions =
        fixed.rows.defined() ? fixed
                             : TokenDirections(*pass.model, chunk.sequences);
    ASSIGN_OR_RETURN(const Values all,
                     Attribute(pass, chunk.sequences, directions));
    int64_t begin = 0;
    for (size_t i = 0; i < chunk.of.size(); ++i) {
      const int64_t rows = RowCount(*chunk.sequences[i].sequence);
      Parts& mine = parts[chunk.of[i]];
      const auto part = [&](const at::Tensor& tensor) {
        const at::Tensor some = tensor.narrow(0, begin, rows);
        return query_.mean ? some.sum(0, /*keepdim=*/true, at::kDouble) : some;
      };
      mine.values.push_back(part(all.values));
      mine.totals.push_back(part(all.total));
      mine.bias =
          directions.bias.dim() == 1 ? directions.bias : directions.bias[i];
      begin += rows;
    }
  }
  std::vector<std::vector<storage::Array>> records;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const int64_t rows = RowCount(*sequences[i].sequence);
    const auto joined = [&](std::vector<at::Tensor>& all) {
      at::Tensor tensor = at::cat(std::exchange(all, {}));
      if (query_.mean) tensor = tensor.sum(0, /*keepdim=*/true) / rows;
      return ToArray(tensor, storage::DType::kFloat32);
    };
    if (rows == 0) {
      records.push_back(Empty(query_.mean ? 1 : 0,
                              ComponentCount(query_.decomposition, config_),
                              n));
      continue;
    }
    records.push_back({joined(parts[i].values), joined(parts[i].totals),
                       ToArray(parts[i].bias, storage::DType::kFloat32)});
  }
  return records;
}

}  // namespace cupola::analysis
