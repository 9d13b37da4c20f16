#ifndef CUPOLA_SERVER_MODEL_MLP_VJP_H_
#define CUPOLA_SERVER_MODEL_MLP_VJP_H_

#include "ATen/ATen.h"
#include "server/model/model_config.h"

namespace cupola::model {

// Cotangents of an MLP's pre-activations; `linear` of a gated one only, whose
// `pre` is the gate's.
struct MlpCotangents {
  at::Tensor pre, linear;  // float32 [rows, positions, d_mlp]
};

// Cotangents g [rows, positions, d_mlp] of the hidden activations
// (mlp.hook_post) to those of the pre-activations:
//   plain  g act'(pre)
//   gated  g act'(pre) linear, and g act(pre)
// pre, linear: float32 [positions, d_mlp] of the clean pass, `linear` undefined
// for a plain MLP. Exceptions of LibTorch pass through.
MlpCotangents MlpVjp(Activation activation, const at::Tensor& pre,
                     const at::Tensor& linear, const at::Tensor& g);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_MLP_VJP_H_
