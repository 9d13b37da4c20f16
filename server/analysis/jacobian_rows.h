#ifndef CUPOLA_SERVER_ANALYSIS_JACOBIAN_ROWS_H_
#define CUPOLA_SERVER_ANALYSIS_JACOBIAN_ROWS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/array.h"

namespace cupola::analysis {

// RESOURCE_EXHAUSTED: the Jacobian of one prompt is larger than may be sent.
absl::Status JacobianTooLarge(double bytes, int64_t max_bytes);

// A CSR matrix: indptr INT64 [rows + 1], indices UINT32 and values FLOAT32
// [entries].
struct RowsOfJacobian {
  storage::Array indptr, indices, values;
};

// Rows of a Jacobian against all input latents, of which only what matters is
// kept: entries with |J| >= min_abs (0: those that are not 0), of each row the
// `top` of largest |J| (0: all; the lowest index wins ties).
class JacobianRowWriter {
 public:
  JacobianRowWriter(float min_abs, int64_t top, int64_t max_bytes)
      : min_abs_(min_abs), top_(top), max_bytes_(max_bytes) {}

  // rows: float32 [rows, d_sae], below those that came before.
  // RESOURCE_EXHAUSTED, before they are copied, once the entries take more than
  // `max_bytes`. Exceptions of LibTorch pass through.
  absl::Status Append(const at::Tensor& rows);

  // Ends the writing.
  RowsOfJacobian Finish();

 private:
  absl::Status AppendTop(const at::Tensor& rows);
  // Makes room for a row each of so many entries: the place of the first.
  absl::StatusOr<int64_t> AddRows(const std::vector<int64_t>& counts);

  const float min_abs_;
  const int64_t top_, max_bytes_;
  std::vector<int64_t> indptr_ = {0};
  std::string indices_, values_;  // uint32 and float32
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_JACOBIAN_ROWS_H_
