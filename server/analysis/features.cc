#include "server/analysis/features.h"

#include <algorithm>
#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// Rows a single encode call takes: bounds its dense pre-activations, and the
// time until the next look at whether anyone still waits.
constexpr int64_t kChunkRows = 4096;

// Splits the CSR rows of one chunk onto the records of the sequences.
class RecordBuilder {
 public:
  explicit RecordBuilder(const std::vector<Placed>& sequences) {
    for (const Placed& placed : sequences) {
      rows_left_.push_back(RowCount(*placed.sequence));
      indptr_.push_back({0});
      indices_.emplace_back();
      values_.emplace_back();
    }
  }

  void Append(const dictionary::SparseRows& chunk) {
    const int64_t* indptr = chunk.indptr.const_data_ptr<int64_t>();
    const int64_t rows = chunk.indptr.numel() - 1;
    for (int64_t done = 0; done < rows;) {
      while (rows_left_[current_] == 0) ++current_;
      const int64_t take = std::min(rows - done, rows_left_[current_]);
      const int64_t begin = indptr[done], end = indptr[done + take];
      Copy(chunk, begin, end);
      std::vector<int64_t>& out = indptr_[current_];
      const int64_t shift = out.back() - begin;
      for (int64_t r = 1; r <= take; ++r)
        out.push_back(indptr[done + r] + shift);
      rows_left_[current_] -= take;
      done += take;
    }
  }

  std::vector<std::vector<storage::Array>> Finish() {
    std::vector<std::vector<storage::Array>> records;
    for (size_t i = 0; i < indptr_.size(); ++i) {
      const int64_t entries = indptr_[i].back();
      storage::Array indptr{storage::DType::kInt64,
                            {static_cast<int64_t>(indptr_[i].size())},
                            {}};
      indptr.bytes.assign(reinterpret_cast<const char*>(indptr_[i].data()),
                          indptr_[i].size() * sizeof(int64_t));
      records.push_back(
          {std::move(indptr),
           {storage::DType::kUInt32, {entries}, std::move(indices_[i])},
           {storage::DType::kFloat32, {entries}, std::move(values_[i])}});
    }
    return records;
  }

 private:
  void Copy(const dictionary::SparseRows& chunk, int64_t begin, int64_t end) {
    const int32_t* indices = chunk.indices.const_data_ptr<int32_t>();
    const float* values = chunk.values.const_data_ptr<float>();
    const size_t bytes = (end - begin) * 4;
    indices_[current_].append(reinterpret_cast<const char*>(indices + begin),
                              bytes);
    values_[current_].append(reinterpret_cast<const char*>(values + begin),
                             bytes);
  }

  size_t current_ = 0;
  std::vector<int64_t> rows_left_;
  std::vector<std::vector<int64_t>> indptr_;
  std::vector<std::string> indices_, values_;
};

}  // namespace

FeaturesAnalysis::FeaturesAnalysis(
    std::shared_ptr<const dictionary::Dictionary> dictionary,
    model::HookPoint hook, dictionary::EncodeOptions options)
    : dictionary_(std::move(dictionary)),
      hook_(hook),
      options_(std::move(options)) {}

storage::Digest FeaturesAnalysis::Identity(
    const storage::Digest& dictionary, dictionary::Half half,
    const dictionary::EncodeOptions& options) {
  return storage::Hasher("features/1")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInts(options.latents.data(), options.latents.size())
      .AddInt(options.top_k)
      .AddDouble(options.min_activation)
      .Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> FeaturesAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(at::Tensor x, GatherRows(pass, hook_, sequences));
  RecordBuilder builder(sequences);
  for (int64_t begin = 0; begin < x.size(0); begin += kChunkRows) {
    RETURN_IF_ERROR(pass.poll());
    const int64_t rows = std::min(kChunkRows, x.size(0) - begin);
    ASSIGN_OR_RETURN(dictionary::SparseRows chunk,
                     dictionary_->Encode(x.narrow(0, begin, rows), options_));
    builder.Append(chunk);
  }
  return builder.Finish();
}

}  // namespace cupola::analysis
