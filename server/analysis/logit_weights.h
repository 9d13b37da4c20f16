#ifndef CUPOLA_SERVER_ANALYSIS_LOGIT_WEIGHTS_H_
#define CUPOLA_SERVER_ANALYSIS_LOGIT_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/dictionary/dictionary.h"
#include "server/model/hook_point.h"
#include "server/model/model.h"

namespace cupola::analysis {

struct LogitWeightsOptions {
  int64_t top = 10, bottom = 10;  // tokens of each end
  int64_t bins = 50;              // of the histogram
  bool gain = true;               // see model/logit_directions.h

  friend bool operator==(const LogitWeightsOptions&,
                         const LogitWeightsOptions&) = default;
};

// What latents do to the logits directly, over the whole vocabulary: a row for
// each latent, on the host.
struct LogitWeights {
  at::Tensor tokens;     // int32 [latents, top + bottom]: the top ones,
                         // descending, then the bottom ones, ascending; the
                         // lowest token first among equals
  at::Tensor values;     // float32, their logits
  at::Tensor histogram;  // int64 [latents, bins]: equal ones from the smallest
                         // logit to the largest, which is in the last one
  at::Tensor ends;       // float32 [latents, 2]: the smallest and the largest
};

// INVALID_ARGUMENT: top, bottom not 0 to d_vocab; bins not 1 to 10,000.
absl::Status CheckOptions(const LogitWeightsOptions& options, int64_t d_vocab);

// Of logits that are known: float32 [latents, d_vocab], contiguous, on the CPU.
// INVALID_ARGUMENT: CheckOptions'.
absl::StatusOr<LogitWeights> SummarizeLogits(
    const at::Tensor& logits, const LogitWeightsOptions& options);

// Of the decoder rows of some latents, each 0 to d_sae - 1: W_dec[f] (W_out)
// W_U, as TokensQuery (latent_weights.h) says. Logits are made of a few latents
// at a time. INVALID_ARGUMENT: CheckOptions'; `poll`'s own.
absl::StatusOr<LogitWeights> LogitWeightsOf(
    const dictionary::Dictionary& dictionary, const model::HookPoint& hook_out,
    const model::Model& model, const std::vector<int64_t>& latents,
    const LogitWeightsOptions& options,
    const std::function<absl::Status()>& poll);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LOGIT_WEIGHTS_H_
