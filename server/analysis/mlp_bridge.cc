#include "server/analysis/mlp_bridge.h"

#include <utility>

#include "server/dictionary/weights.h"
#include "server/model/activation_derivative.h"
#include "server/model/mlp.h"
#include "server/model/status_macros.h"
#include "server/model/weights.h"

namespace cupola::analysis {
namespace {

using dictionary::Dictionary;

int64_t BytesOf(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

at::Tensor Widened(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(at::kFloat) : tensor;
}

// Columns of W_enc as rows, each latent's derivative by the dictionary's
// normalised input while it is active.
at::Tensor EncoderRows(const Dictionary& dictionary) {
  const dictionary::Weights& weights = dictionary.weights();
  at::Tensor rows = weights.encoder.Weight().to(at::kFloat).t().contiguous();
  if (weights.mag_scale.defined()) rows.mul_(weights.mag_scale.unsqueeze(1));
  return rows;
}

LatentDirections MakeDirections(at::Tensor rows, const at::Tensor& matrix,
                                const at::Tensor& gain, bool keep_products) {
  LatentDirections directions;
  directions.rows = std::move(rows);
  directions.matrix = matrix.contiguous();
  directions.folded = gain.defined() ? directions.matrix * gain.unsqueeze(1)
                                     : directions.matrix;
  if (keep_products) {
    directions.products = at::mm(directions.rows, directions.folded);
  }
  return directions;
}

}  // namespace

at::Tensor LatentDirections::Gather(const at::Tensor& latents,
                                    const TokenMap& map) const {
  const int64_t n = latents.size(0), k = latents.size(1);
  const at::Tensor flat = latents.reshape({n * k});
  const auto shaped = [n, k](const at::Tensor& gathered) {
    return gathered.view({n, k, gathered.size(1)});
  };
  at::Tensor raw;
  if (!products.defined() || map.to.defined()) {
    raw = shaped(rows.index_select(0, flat));
  }
  at::Tensor hidden = products.defined()
                          ? shaped(products.index_select(0, flat))
                          : at::matmul(raw, folded);
  if (map.scale.defined()) hidden.mul_(map.scale.unsqueeze(-1));
  if (map.to.defined()) {
    hidden.baddbmm_(at::bmm(raw, map.from.transpose(1, 2)),
                    at::matmul(map.to, matrix));
  }
  return hidden;
}

int64_t LatentDirections::Bytes() const {
  return BytesOf(rows) + BytesOf(matrix) + BytesOf(products) +
         (folded.is_same(matrix) ? 0 : BytesOf(folded));
}

void MlpBridge::ReadModel(const model::Model& model) {
  const model::Block& block = model.weights().blocks[place_.x.layer];
  norm_ = block.ln2;
  if (place_.post_norm) post_norm_ = block.ln2_post;
  for (at::Tensor* tensor :
       {&norm_.weight, &norm_.bias, &post_norm_.weight, &post_norm_.bias}) {
    *tensor = Widened(*tensor);
  }
  if (!place_.gain) {
    norm_.weight.reset();
    norm_.bias.reset();
  }
}

absl::Status MlpBridge::ReadFile(const Dictionary& pair) {
  ASSIGN_OR_RETURN(const dictionary::MlpWeights mlp, pair.source().ReadMlp());
  const at::Device device = pair.device();
  in_ = model::Linear::Create(mlp.W_in, mlp.b_in, at::kFloat, device);
  out_ = model::Linear::Create(mlp.W_out, mlp.b_out, at::kFloat, device);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const MlpBridge>> MlpBridge::Create(
    const BridgePlace& place, const model::Model* model, const Dictionary& in,
    const Dictionary& out, bool keep_products) {
  std::shared_ptr<MlpBridge> bridge(new MlpBridge);
  bridge->place_ = place;
  at::Tensor W_in;
  if (place.source == dictionary::MlpSource::kFile) {
    RETURN_IF_ERROR(bridge->ReadFile(in));
    W_in = bridge->in_.Weight();
    bridge->W_out_ = bridge->out_.Weight();
  } else {
    bridge->ReadModel(*model);
    const model::Block& block = model->weights().blocks[place.x.layer];
    W_in = block.mlp_in.Weight().to(at::kFloat);
    bridge->W_out_ = block.mlp_out.Weight().to(at::kFloat);
  }
  bridge->decoder_ = MakeDirections(in.weights().W_dec.to(at::kFloat), W_in,
                                    bridge->norm_.weight, keep_products);
  bridge->encoder_ = MakeDirections(EncoderRows(out), bridge->W_out_.t(),
                                    bridge->post_norm_.weight, keep_products);
  return bridge;
}

int64_t MlpBridge::ProductBytes(const BridgePlace& place,
                                const dictionary::Manifest& in,
                                const dictionary::Manifest& out) {
  const int64_t width = place.d_mlp * (place.gated ? 2 : 1);
  return static_cast<int64_t>(sizeof(float)) *
         (in.d_sae * (width + in.d_out) + out.d_sae * (place.d_mlp + out.d_in) +
          2 * (in.d_out * width + out.d_in * place.d_mlp));
}

at::Tensor MlpBridge::MlpInput(const at::Tensor& x, Point* point) const {
  at::Tensor h = x;
  if (place_.norm) {
    point->norm.emplace(norm_, x);
    h = point->norm->value();
    point->in = point->norm->derivative();
  }
  if (norm_.weight.defined()) {
    h = h * norm_.weight;
    point->in = Compose(point->in, {norm_.weight, {}, {}, {}});
  }
  return norm_.bias.defined() ? h + norm_.bias : h;
}

MlpBridge::Point MlpBridge::Evaluate(const model::Model* model,
                                     const at::Tensor& x) const {
  const bool file = in_.defined();
  const model::Block* block =
      file ? nullptr : &model->weights().blocks[place_.x.layer];
  const model::Linear& mlp_in = file ? in_ : block->mlp_in;
  const model::Linear& mlp_out = file ? out_ : block->mlp_out;
  const at::ScalarType dtype = file ? at::kFloat : model->options().dtype;

  Point point;
  const at::Tensor h = MlpInput(x, &point);
  point.pre = mlp_in(h.to(dtype)).to(at::kFloat);
  at::Tensor hidden;
  if (place_.gated) {
    const int64_t half = point.pre.size(1) / 2;
    const at::Tensor gate = point.pre.narrow(1, 0, half);
    const at::Tensor linear = point.pre.narrow(1, half, half);
    const auto jet = model::DifferentiateActivation(place_.activation, gate,
                                                    /*second=*/false);
    hidden = jet.value * linear;
    point.gradients = at::cat({jet.first * linear, jet.value}, 1);
  } else {
    const auto jet =
        model::DifferentiateActivation(place_.activation, point.pre,
                                       /*second=*/false);
    hidden = jet.value;
    point.gradients = jet.first;
  }
  point.mlp_out = mlp_out(hidden.to(dtype)).to(at::kFloat);
  if (place_.post_norm) {
    point.post_norm.emplace(post_norm_, point.mlp_out);
    point.mlp_out = point.post_norm->value();
    point.out = point.post_norm->derivative();
    if (post_norm_.weight.defined()) {
      point.mlp_out = point.mlp_out * post_norm_.weight;
      point.out = Compose(point.out, {post_norm_.weight, {}, {}, {}});
    }
  }
  point.y = place_.identity ? point.mlp_out + x : point.mlp_out;
  return point;
}

MlpBridge::Point MlpBridge::Point::Select(const at::Tensor& tokens) const {
  const auto part = [&tokens](const at::Tensor& x) {
    return x.index_select(0, tokens);
  };
  const auto norm_part = [&tokens](const std::optional<Normalisation>& whole) {
    return whole.has_value() ? std::make_optional(whole->Select(tokens))
                             : std::nullopt;
  };
  return {part(y),         part(mlp_out),       part(gradients),
          part(pre),       in.Select(tokens),   out.Select(tokens),
          norm_part(norm), norm_part(post_norm)};
}

int64_t MlpBridge::Bytes() const {
  return decoder_.Bytes() + encoder_.Bytes() + in_.resident_bytes() +
         out_.resident_bytes();
}

}  // namespace cupola::analysis
