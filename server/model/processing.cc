#include "server/model/processing.h"

namespace cupola::model {
namespace {

void AddTo(at::Tensor* bias, const at::Tensor& addend) {
  *bias = bias->defined() ? *bias + addend : addend;
}

// (n * gain + shift) W + b = n W' + b' for every normalised row n. Where the
// norm centres its rows, so that n sums to zero, W' may lose its columns'
// means.
void FoldNorm(const NormWeights& norm, bool center, Affine* affine) {
  if (norm.bias.defined()) {
    AddTo(&affine->bias, at::matmul(norm.bias, affine->weight));
  }
  affine->weight = affine->weight * norm.weight.unsqueeze(-1);
  if (center) affine->weight.sub_(affine->weight.mean(0, /*keepdim=*/true));
}

// Takes the mean out of what x W + b adds to the residual stream.
void CenterWriter(Affine* affine) {
  affine->weight = affine->weight - affine->weight.mean(-1, /*keepdim=*/true);
  if (affine->bias.defined()) affine->bias = affine->bias - affine->bias.mean();
}

}  // namespace

bool FoldingCentersWriters(const ModelConfig& config) {
  return config.norm == NormKind::kLayerNorm;
}

bool FoldingCentersLogits(const ModelConfig& config) {
  return config.logit_softcap == 0;
}

void FoldAttention(const ModelConfig& config, AttentionTensors* tensors) {
  const bool center = FoldingCentersWriters(config);
  for (Affine* reader : {&tensors->q, &tensors->k, &tensors->v}) {
    FoldNorm(tensors->ln1, center, reader);
  }
  tensors->ln1 = {};
  if (center) CenterWriter(&tensors->out);
  if (tensors->v.bias.defined()) {
    // Each key/value head serves a group of query heads.
    const at::Tensor per_head =
        tensors->v.bias.view({config.n_kv_heads, config.d_head})
            .repeat_interleave(config.n_heads / config.n_kv_heads, 0)
            .flatten();
    AddTo(&tensors->out.bias, at::matmul(per_head, tensors->out.weight));
    tensors->v.bias.reset();
  }
}

void FoldMlp(const ModelConfig& config, MlpTensors* tensors) {
  const bool center = FoldingCentersWriters(config);
  if (tensors->gate.weight.defined()) {
    FoldNorm(tensors->ln2, /*center=*/false, &tensors->gate);
  }
  FoldNorm(tensors->ln2, center, &tensors->in);
  tensors->ln2 = {};
  if (center) CenterWriter(&tensors->out);
}

void FoldUnembedding(const ModelConfig& config, NormWeights* final_norm,
                     Affine* unembedding) {
  FoldNorm(*final_norm, FoldingCentersWriters(config), unembedding);
  *final_norm = {};
  if (!FoldingCentersLogits(config)) return;
  unembedding->weight.sub_(unembedding->weight.mean(-1, /*keepdim=*/true));
  if (unembedding->bias.defined()) {
    unembedding->bias = unembedding->bias - unembedding->bias.mean();
  }
}

}  // namespace cupola::model
