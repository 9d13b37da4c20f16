#ifndef CUPOLA_SERVER_MODEL_MLP_H_
#define CUPOLA_SERVER_MODEL_MLP_H_

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/model_config.h"
#include "server/model/pass.h"
#include "server/model/weights.h"

namespace cupola::model {

// The MLP of the pass's current layer, without norms: x, ln2's output [...,
// d_model]
// -> what it writes [..., d_model], undefined where the pass ends inside.
//   act(x W_in + b_in) W_out + b_out, or gated
//   (act(x W_gate + b_gate) * (x W_in + b_in)) W_out + b_out
absl::Status RunMlp(const ModelConfig& config, const Block& block,
                    const at::Tensor& x, Pass* pass, at::Tensor* out);

// The activation function, elementwise; `x` is kept.
at::Tensor Activate(Activation activation, const at::Tensor& x);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_MLP_H_
