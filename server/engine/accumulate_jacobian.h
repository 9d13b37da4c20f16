#ifndef CUPOLA_SERVER_ENGINE_ACCUMULATE_JACOBIAN_H_
#define CUPOLA_SERVER_ENGINE_ACCUMULATE_JACOBIAN_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/jacobian_totals.h"
#include "server/engine/jacobian_requests.h"
#include "server/engine/job_kind.h"

// The job kind "accumulate_jacobian": sum, maximum and count of |J| over many
// tokens (analysis/jacobian_totals.h).

namespace cupola::engine {

inline constexpr char kAccumulateJacobian[] = "accumulate_jacobian";

struct AccumulateJacobianRequest {
  // What is asked of each token; of its options, those that AskJacobian sends
  // more numbers for do not apply. Prompts or `rows`, not inputs.
  JacobianRequest jacobian;
  bool float64 = false;
  int64_t bins = 110;
  double bins_end = 1.1;
  int64_t chunk_tokens = 0;         // 0: a good number
  std::optional<DatasetRows> rows;  // in place of prompts
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

// Validates every prompt. The errors are AskJacobian's and ResolveRows', and
// RESOURCE_EXHAUSTED with both numbers where the totals would not fit.
absl::StatusOr<JobSpecification> Specify(
    const AccumulateJacobianRequest& request, const JobHost& host,
    const RequestContext& context);

// The chunks are fixed numbers of tokens, cut from the rows in order, so that
// they depend on the specification alone.
absl::StatusOr<std::unique_ptr<JobWork>> MakeAccumulation(
    const std::string& specification, const JobHost& host,
    const RequestContext& context);

// `work`: MakeAccumulation's.
const analysis::JacobianTotals& TotalsOf(const JobWork& work);

// INVALID_ARGUMENT names the field. `work`: MakeAccumulation's.
absl::StatusOr<JacobianTotalsAnswer> QueryAccumulation(
    const JobWork& work, const JacobianTotalsRequest& request,
    const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ACCUMULATE_JACOBIAN_H_
