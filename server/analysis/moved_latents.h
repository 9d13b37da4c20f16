#ifndef CUPOLA_SERVER_ANALYSIS_MOVED_LATENTS_H_
#define CUPOLA_SERVER_ANALYSIS_MOVED_LATENTS_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/analysis/mlp_bridge.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// The output dictionary's activations of chosen latents at given rows, its own
// selection (a TopK's competition) included: x float32 [s, d] at place().x,
// latents int64 [s, m] -> float32 [s, m]. Rows are taken some at a time, with a
// poll in between. Errors as Dictionary::Encode's, and poll's. Exceptions of
// LibTorch pass through.
absl::StatusOr<at::Tensor> ActivationsAt(const Pass& pass,
                                         const MlpBridge& bridge,
                                         const dictionary::Dictionary& out,
                                         const at::Tensor& x,
                                         const at::Tensor& latents);

// What `in`'s decoder adds to x per unit of a latent at a token: read float32
// [s, d_in] the token's rows, latents int64 [s] -> float32 [s, d].
at::Tensor DirectionsOf(const MlpBridge& bridge,
                        const dictionary::Dictionary& in,
                        const at::Tensor& read, const at::Tensor& latents);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_MOVED_LATENTS_H_
