#ifndef CUPOLA_SERVER_ANALYSIS_RESIDUAL_WRITES_H_
#define CUPOLA_SERVER_ANALYSIS_RESIDUAL_WRITES_H_

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/model.h"

namespace cupola::analysis {

// INVALID_ARGUMENT unless a value at this point has a share in the residual
// stream that ToResidual can tell, with the points for which it can. `field`
// names what was asked in the message.
absl::Status CheckWritesToResidual(const model::HookPoint& hook,
                                   absl::string_view field);

// What rows at a hook point add to the residual stream: themselves at the
// residual's own points and at what sublayers add to it, through W_out at
// mlp.hook_post and through W_O at attn.hook_z (biases left out). In a family
// with post norms these two then pass the norm's gain, though not its scale,
// which differs from token to token.
// x: float32 [rows, width], heads flattened head-major -> [rows, d_model].
// REQUIRES: CheckWritesToResidual. Exceptions of LibTorch pass through.
at::Tensor ToResidual(const model::Model& model, const model::HookPoint& hook,
                      const at::Tensor& x);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_RESIDUAL_WRITES_H_
