#include "server/model/logit_directions.h"

#include "server/model/weights.h"

namespace cupola::model {
namespace {

// Projects a LayerNorm's centring onto rows: x - mean(x) dotted with a row is x
// dotted with the row less its mean.
at::Tensor CentredFor(const ModelConfig& config, const at::Tensor& rows) {
  if (config.norm != NormKind::kLayerNorm) return rows;
  return rows - rows.mean(-1, /*keepdim=*/true);
}

// From what the final norm's gain and bias have been applied to.
at::Tensor Unembed(const Model& model, const at::Tensor& x) {
  return model.weights()
      .unembedding(x.to(model.options().dtype), /*edited=*/true)
      .to(at::kFloat);
}

}  // namespace

LogitDirections LogitDirectionsOf(const Model& model,
                                  const std::vector<int64_t>& tokens,
                                  bool gain) {
  const ModelConfig& config = model.config();
  const Unembedding& unembedding = model.weights().unembedding;
  const Norm& norm = model.weights().final_norm;
  const at::Tensor index =
      at::tensor(tokens, at::kLong).to(model.options().device);
  at::Tensor rows = unembedding.linear.Columns(index).t().to(at::kFloat);
  if (unembedding.centers_logits) {  // of tied models only
    rows =
        rows - model.weights().embedding.mean(0, /*keepdim=*/false, at::kFloat);
  }
  at::Tensor bias = at::zeros({rows.size(0)}, rows.options());
  if (unembedding.linear.bias().defined()) {
    bias = unembedding.linear.bias().index_select(0, index).to(at::kFloat);
  }
  const bool raw_gain = gain && norm.weight.defined();
  const at::Tensor& scale = raw_gain ? norm.weight : unembedding.gain;
  const at::Tensor& shift = raw_gain ? norm.bias : unembedding.shift;
  if (shift.defined()) bias = bias + at::mv(rows, shift.to(at::kFloat));
  if (scale.defined()) rows = rows * scale.to(at::kFloat);
  return {CentredFor(config, rows), bias};
}

at::Tensor ProjectToLogits(const Model& model, const at::Tensor& x, bool gain) {
  const Norm& norm = model.weights().final_norm;
  at::Tensor rows = CentredFor(model.config(), x);
  if (gain && norm.weight.defined()) rows = rows * norm.weight.to(at::kFloat);
  // The unembedding is affine: less its value at zero, it is linear.
  return Unembed(model, rows) - Unembed(model, at::zeros_like(rows[0]));
}

}  // namespace cupola::model
