#include "server/analysis/jacobian_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "server/dictionary/vectorize.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using storage::Array;
using storage::DType;

static_assert(sizeof(float) == sizeof(uint32_t));
constexpr int64_t kEntryBytes = sizeof(uint32_t) + sizeof(float);

// How many of a row's values are kept.
CUPOLA_CLONES int64_t CountKept(const float* row, int64_t width,
                                float min_abs) {
  int32_t kept = 0;
  if (min_abs > 0) {
    for (int64_t i = 0; i < width; ++i) kept += std::fabs(row[i]) >= min_abs;
  } else {
    for (int64_t i = 0; i < width; ++i) kept += row[i] != 0;
  }
  return kept;
}

// Writes a row's kept values and their columns.
void WriteKept(const float* row, int64_t width, float min_abs, int64_t count,
               uint32_t* indices, float* values) {
  if (count == width) {
    std::iota(indices, indices + width, 0);
    std::copy(row, row + width, values);
    return;
  }
  for (int64_t i = 0; i < width; ++i) {
    const bool kept = min_abs > 0 ? std::fabs(row[i]) >= min_abs : row[i] != 0;
    if (!kept) continue;
    *indices++ = static_cast<uint32_t>(i);
    *values++ = row[i];
  }
}

Array ToVector(DType dtype, int64_t size, std::string bytes) {
  return {dtype, {size}, std::move(bytes)};
}

}  // namespace

absl::Status JacobianTooLarge(double bytes, int64_t max_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the Jacobian of one prompt would hold ", bytes,
                   " bytes; the server sends at most ", max_bytes,
                   ": raise min_abs, set top, or ask for fewer positions"));
}

absl::StatusOr<int64_t> JacobianRowWriter::AddRows(
    const std::vector<int64_t>& counts) {
  const int64_t first = indptr_.back();
  const int64_t entries = std::accumulate(counts.begin(), counts.end(), first);
  const double bytes = static_cast<double>(kEntryBytes) * entries;
  if (bytes > static_cast<double>(max_bytes_)) {
    return JacobianTooLarge(bytes, max_bytes_);
  }
  for (int64_t count : counts) indptr_.push_back(indptr_.back() + count);
  indices_.resize(entries * sizeof(uint32_t));
  values_.resize(entries * sizeof(float));
  return first;
}

absl::Status JacobianRowWriter::Append(const at::Tensor& rows) {
  const int64_t n = rows.size(0), width = rows.size(1);
  if (top_ > 0 && top_ < width) return AppendTop(rows);
  const at::Tensor host = rows.cpu().contiguous();
  const float* const data = host.const_data_ptr<float>();
  std::vector<int64_t> counts(n);
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      counts[i] = CountKept(data + i * width, width, min_abs_);
    }
  });
  RETURN_IF_ERROR(AddRows(counts).status());
  const int64_t* const places = &indptr_[indptr_.size() - 1 - n];
  auto* const indices = reinterpret_cast<uint32_t*>(indices_.data());
  auto* const values = reinterpret_cast<float*>(values_.data());
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      WriteKept(data + i * width, width, min_abs_, counts[i],
                indices + places[i], values + places[i]);
    }
  });
  return absl::OkStatus();
}

// Rows of few entries each: the largest are found where the rows are.
absl::Status JacobianRowWriter::AppendTop(const at::Tensor& rows) {
  at::Tensor kept = min_abs_ > 0 ? rows.abs().ge(min_abs_) : rows.ne(0);
  const at::Tensor order =
      std::get<1>(at::sort(rows.abs(), /*stable=*/true, /*dim=*/-1,
                           /*descending=*/true))
          .narrow(1, 0, top_);
  kept = kept & at::zeros_like(kept).scatter_(1, order, true);
  const at::Tensor counts = kept.sum(1).cpu();
  const int64_t* const each = counts.const_data_ptr<int64_t>();
  ASSIGN_OR_RETURN(const int64_t first, AddRows({each, each + counts.numel()}));
  const at::Tensor columns =
      kept.nonzero().select(1, 1).to(at::kCPU, at::kInt).contiguous();
  const at::Tensor values = rows.masked_select(kept).cpu();
  std::memcpy(indices_.data() + first * sizeof(uint32_t),
              columns.const_data_ptr<int32_t>(), columns.nbytes());
  std::memcpy(values_.data() + first * sizeof(float),
              values.const_data_ptr<float>(), values.nbytes());
  return absl::OkStatus();
}

RowsOfJacobian JacobianRowWriter::Finish() {
  const int64_t entries = indptr_.back();
  std::string indptr(reinterpret_cast<const char*>(indptr_.data()),
                     indptr_.size() * sizeof(int64_t));
  return {ToVector(DType::kInt64, static_cast<int64_t>(indptr_.size()),
                   std::move(indptr)),
          ToVector(DType::kUInt32, entries, std::move(indices_)),
          ToVector(DType::kFloat32, entries, std::move(values_))};
}

}  // namespace cupola::analysis
