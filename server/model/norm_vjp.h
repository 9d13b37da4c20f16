#ifndef CUPOLA_SERVER_MODEL_NORM_VJP_H_
#define CUPOLA_SERVER_MODEL_NORM_VJP_H_

#include "ATen/ATen.h"
#include "server/model/model_config.h"

namespace cupola::model {

// Cotangents of a norm's normalised rows n = c / s, without gain and bias, to
// those of its input x, where c is x, centred by a LayerNorm, and s =
// sqrt(mean(c^2) + eps):
//   u = (g - n mean(g n)) / s,  of a LayerNorm less its own mean.
// With the scale s `frozen`, a constant, u = g / s.
//
// g: float32 [rows, positions, ..., width]; normalized [positions, ..., width]
// and scale [positions, ..., 1] as the hook points of these names have them.
// Exceptions of LibTorch pass through.
at::Tensor NormalizeVjp(NormKind kind, const at::Tensor& normalized,
                        const at::Tensor& scale, const at::Tensor& g,
                        bool frozen);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_NORM_VJP_H_
