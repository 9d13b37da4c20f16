#ifndef CUPOLA_SERVER_ANALYSIS_ASSIGNMENT_H_
#define CUPOLA_SERVER_ANALYSIS_ASSIGNMENT_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"

namespace cupola::analysis {

enum class Objective : uint8_t { kMinimize = 1, kMaximize = 2 };

// The one-to-one assignment of rows to columns of the smallest (largest) sum,
// exact: what scipy.optimize.linear_sum_assignment computes. -> [rows], each
// row's column, or -1: where there are more rows than columns, all columns are
// assigned and some rows are not. Of several optimal assignments any one, the
// same one every time.
//
// values: float32 or float64 [rows, columns] on the CPU, contiguous; the sums
// are in double. Besides them it takes memory for a handful of vectors, and
// for a transposed copy where there are more rows than columns. Time: at worst
// cubic; `poll` is asked now and then whether the answer is still wanted, and
// may be empty. Runs on the calling thread.
//
// INVALID_ARGUMENT: another shape or type, a value that is not finite (named);
// `poll`'s own.
//
// Method: Jonker and Volgenant, "A shortest augmenting path algorithm for dense
// and sparse linear assignment problems" (1987): augmenting row reduction, then
// one shortest augmenting path for each row that is still free.
absl::StatusOr<std::vector<int64_t>> AssignOneToOne(
    const at::Tensor& values, Objective objective,
    const std::function<absl::Status()>& poll);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ASSIGNMENT_H_
