#include "server/analysis/jacobian_rows.h"

#include "absl/strings/str_cat.h"
#include "server/analysis/tensor_io.h"

namespace cupola::analysis {

using storage::DType;

absl::Status JacobianTooLarge(double bytes, int64_t max_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the Jacobian of one prompt would hold ", bytes,
                   " bytes; the server sends at most ", max_bytes,
                   ": raise min_abs, set top, or ask for fewer positions"));
}

absl::Status JacobianRowWriter::Append(const at::Tensor& rows) {
  at::Tensor kept = min_abs_ > 0 ? rows.abs().ge(min_abs_) : rows.ne(0);
  if (top_ > 0 && top_ < rows.size(1)) {
    const at::Tensor order =
        std::get<1>(at::sort(rows.abs(), /*stable=*/true, /*dim=*/-1,
                             /*descending=*/true))
            .narrow(1, 0, top_);
    kept = kept & at::zeros_like(kept).scatter_(1, order, true);
  }
  const at::Tensor where = kept.nonzero();
  entries_ += where.size(0);
  const double bytes = 8.0 * static_cast<double>(entries_);
  if (bytes > static_cast<double>(max_bytes_)) {
    return JacobianTooLarge(bytes, max_bytes_);
  }
  counts_.push_back(kept.sum(1).cpu());
  indices_.push_back(where.select(1, 1).to(at::kCPU, at::kInt));
  values_.push_back(rows.masked_select(kept).cpu());
  return absl::OkStatus();
}

RowsOfJacobian JacobianRowWriter::Finish() const {
  const at::Tensor counts =
      counts_.empty() ? at::empty({0}, at::kLong) : at::cat(counts_);
  at::Tensor indptr = at::zeros({counts.size(0) + 1}, at::kLong);
  indptr.narrow(0, 1, counts.size(0)).copy_(counts.cumsum(0));
  if (counts_.empty()) {
    return {ToArray(indptr, DType::kInt64),
            {DType::kUInt32, {0}, {}},
            {DType::kFloat32, {0}, {}}};
  }
  return {ToArray(indptr, DType::kInt64),
          ToArray(at::cat(indices_), DType::kUInt32),
          ToArray(at::cat(values_), DType::kFloat32)};
}

}  // namespace cupola::analysis
