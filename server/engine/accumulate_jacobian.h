#ifndef CUPOLA_SERVER_ENGINE_ACCUMULATE_JACOBIAN_H_
#define CUPOLA_SERVER_ENGINE_ACCUMULATE_JACOBIAN_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/jacobian_totals.h"
#include "server/engine/jacobian_requests.h"
#include "server/engine/jobs.h"
#include "server/engine/question.h"

// The job kind "accumulate_jacobian": sum, maximum and count of |J| over many
// tokens (analysis/jacobian_totals.h).

namespace cupola::engine {

inline constexpr char kAccumulateJacobian[] = "accumulate_jacobian";

struct AccumulateJacobianRequest {
  // What is asked of each token; of its options, those that AskJacobian sends
  // more numbers for do not apply. Prompts, not inputs.
  JacobianRequest jacobian;
  bool float64 = false;
  int64_t bins = 110;
  double bins_end = 1.1;
  int64_t chunk_tokens = 0;  // 0: a good number
};

// What is asked of a result.
struct JacobianTotalsRequest {
  std::string job;
  analysis::JacobianStatistic statistic = analysis::JacobianStatistic::kMean;
  analysis::JacobianDivisor divisor = analysis::JacobianDivisor::kTokens;
  std::vector<double> thresholds;
  int64_t top = 0;
  std::vector<int64_t> rows, columns;  // output latents; input latents
  bool active = false, histogram = false;
};
struct JacobianTotalsAnswer {
  int64_t tokens = 0, d_out = 0, d_in = 0;
  bool float64 = false;
  double bins_end = 0;
  Array above;              // INT64 [thresholds]: pairs above each
  Array top_out, top_in;    // INT32 [top]
  Array top_values;         // FLOAT64 [top]
  Array rows, columns;      // FLOAT64 [rows, d_in], [columns, d_out]
  Array active, histogram;  // INT64 [d_out], [bins + 1]; or [0]
};

// Asks the engine one JacobianRequest and waits for the answer.
struct JacobianAsker {
  std::function<absl::StatusOr<Sources>(const JacobianRequest&,
                                        const RequestContext&)>
      open;
  std::function<absl::StatusOr<JacobianAnswer>(const JacobianRequest&,
                                               const RequestContext&)>
      ask;
  Limits limits;
};

// A job's specification, self-contained text: token ids and positions as they
// were when it was submitted. Validates every prompt; the errors are
// AskJacobian's, and RESOURCE_EXHAUSTED with both numbers where the totals
// would not fit.
absl::StatusOr<std::string> SpecifyAccumulation(
    const AccumulateJacobianRequest& request, const JacobianAsker& asker,
    const RequestContext& context);

// The job's work. The chunks are fixed numbers of tokens, cut from the prompts
// in order, so that they depend on the specification alone.
absl::StatusOr<std::unique_ptr<JobWork>> MakeAccumulation(
    const std::string& specification, const JacobianAsker& asker,
    const RequestContext& context);

// INVALID_ARGUMENT names the field. `work`: MakeAccumulation's.
absl::StatusOr<JacobianTotalsAnswer> QueryAccumulation(
    const JobWork& work, const JacobianTotalsRequest& request,
    const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ACCUMULATE_JACOBIAN_H_
