#ifndef CUPOLA_SERVER_ANALYSIS_ROWS_H_
#define CUPOLA_SERVER_ANALYSIS_ROWS_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/model/hook_point.h"

namespace cupola::analysis {

// The answer's rows of one sequence: its positions, or all its inputs.
int64_t RowCount(const Sequence& sequence);

// The activations at `hook` of all sequences' rows, one below the other:
// [rows, width] on the device, heads flattened head-major. Of a batch whose
// every position is asked for this is a view, not a copy. For sequences with
// inputs: these. All sequences are of one sort.
absl::StatusOr<at::Tensor> GatherRows(const Pass& pass,
                                      const model::HookPoint& hook,
                                      const std::vector<Placed>& sequences);

// One row of a captured tensor at some positions: `value` is [batch, longest,
// ...], or [batch, n_heads, longest, longest] for attention's square points, of
// which the first `length` keys are kept. -> [positions, ...].
at::Tensor SelectPositions(const at::Tensor& value,
                           const model::HookPoint& hook, int64_t row,
                           const std::vector<int64_t>& positions,
                           int64_t length);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ROWS_H_
