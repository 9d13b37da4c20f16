#ifndef CUPOLA_SERVER_MODEL_NORM_H_
#define CUPOLA_SERVER_MODEL_NORM_H_

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/checkpoint.h"
#include "server/model/hook_point.h"
#include "server/model/model_config.h"
#include "server/model/pass.h"

namespace cupola::model {

// A norm over the last dimension: LayerNorm (x - mean(x)) / sqrt(var(x) + eps)
// or RMS x / sqrt(mean(x^2) + eps), then gain and bias, both absent once folded
// away. Statistics are float32 whatever the model's dtype.
struct Norm {
  NormKind kind = NormKind::kLayerNorm;
  double eps = 0;
  at::Tensor weight, bias;  // in the model's dtype, or undefined

  int64_t bytes() const;
};

// x: [..., width] -> the same shape and dtype, in one fused step where there is
// one.
at::Tensor ApplyNorm(const Norm& norm, const at::Tensor& x);

// Gain and bias on normalised rows of float32; the result has dtype `dtype`.
at::Tensor ApplyGain(const Norm& norm, const at::Tensor& normalized,
                     at::ScalarType dtype);

// As ApplyNorm, through the hook points `scale` and `normalized` of the current
// layer where the pass watches them.
absl::Status RunNorm(const Norm& norm, HookKind scale, HookKind normalized,
                     Pass* pass, at::Tensor* x);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_NORM_H_
