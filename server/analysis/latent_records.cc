#include "server/analysis/latent_records.h"

#include <algorithm>
#include <utility>

#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// Rows a single encode call takes: bounds its dense pre-activations, and the
// time until the next look at whether anyone still waits.
constexpr int64_t kChunkRows = 4096;

}  // namespace

LatentRecords::LatentRecords(const std::vector<int64_t>& rows)
    : rows_left_(rows),
      indptr_(rows.size(), {0}),
      indices_(rows.size()),
      values_(rows.size()) {}

absl::Status LatentRecords::Encode(const dictionary::Dictionary& dictionary,
                                   const at::Tensor& x,
                                   const dictionary::EncodeOptions& options,
                                   const std::function<absl::Status()>& poll) {
  for (int64_t begin = 0; begin < x.size(0); begin += kChunkRows) {
    RETURN_IF_ERROR(poll());
    const int64_t rows = std::min(kChunkRows, x.size(0) - begin);
    ASSIGN_OR_RETURN(const dictionary::SparseRows chunk,
                     dictionary.Encode(x.narrow(0, begin, rows), options));
    Append(chunk);
  }
  return absl::OkStatus();
}

void LatentRecords::Append(const dictionary::SparseRows& chunk) {
  const int64_t* indptr = chunk.indptr.const_data_ptr<int64_t>();
  const int64_t rows = chunk.indptr.numel() - 1;
  for (int64_t done = 0; done < rows;) {
    while (rows_left_[current_] == 0) ++current_;
    const int64_t take = std::min(rows - done, rows_left_[current_]);
    const int64_t begin = indptr[done], end = indptr[done + take];
    Copy(chunk, begin, end);
    std::vector<int64_t>& out = indptr_[current_];
    const int64_t shift = out.back() - begin;
    for (int64_t r = 1; r <= take; ++r) {
      out.push_back(indptr[done + r] + shift);
    }
    bytes_ += 8 * take + 8 * (end - begin);
    rows_left_[current_] -= take;
    done += take;
  }
}

void LatentRecords::Copy(const dictionary::SparseRows& chunk, int64_t begin,
                         int64_t end) {
  const int32_t* indices = chunk.indices.const_data_ptr<int32_t>();
  const float* values = chunk.values.const_data_ptr<float>();
  const size_t bytes = (end - begin) * 4;
  indices_[current_].append(reinterpret_cast<const char*>(indices + begin),
                            bytes);
  values_[current_].append(reinterpret_cast<const char*>(values + begin),
                           bytes);
}

std::vector<std::vector<storage::Array>> LatentRecords::Finish() {
  std::vector<std::vector<storage::Array>> records;
  for (size_t i = 0; i < indptr_.size(); ++i) {
    const int64_t entries = indptr_[i].back();
    storage::Array indptr{
        storage::DType::kInt64, {static_cast<int64_t>(indptr_[i].size())}, {}};
    indptr.bytes.assign(reinterpret_cast<const char*>(indptr_[i].data()),
                        indptr_[i].size() * sizeof(int64_t));
    records.push_back(
        {std::move(indptr),
         {storage::DType::kUInt32, {entries}, std::move(indices_[i])},
         {storage::DType::kFloat32, {entries}, std::move(values_[i])}});
  }
  return records;
}

}  // namespace cupola::analysis
