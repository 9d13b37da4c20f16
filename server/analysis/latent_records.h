#ifndef CUPOLA_SERVER_ANALYSIS_LATENT_RECORDS_H_
#define CUPOLA_SERVER_ANALYSIS_LATENT_RECORDS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/dictionary/dictionary.h"
#include "storage/array.h"

namespace cupola::analysis {

// Rows of latents that are encoded together and belong to several records, cut
// into them: each record's share is indptr INT64 [rows + 1], indices UINT32
// [entries], values FLOAT32 [entries]. Not thread-safe.
class LatentRecords {
 public:
  // rows[i]: how many of the rows, in order, are record i's.
  explicit LatentRecords(const std::vector<int64_t>& rows);

  // Encodes the next rows, float32 or the model's type [n, d_in], some at a
  // time; `poll` is asked in between and ends it.
  absl::Status Encode(const dictionary::Dictionary& dictionary,
                      const at::Tensor& x,
                      const dictionary::EncodeOptions& options,
                      const std::function<absl::Status()>& poll);

  // Bytes so far.
  int64_t bytes() const { return bytes_; }

  // The three arrays of each record. All rows must have come.
  std::vector<std::vector<storage::Array>> Finish();

 private:
  void Append(const dictionary::SparseRows& chunk);
  void Copy(const dictionary::SparseRows& chunk, int64_t begin, int64_t end);

  size_t current_ = 0;
  int64_t bytes_ = 0;
  std::vector<int64_t> rows_left_;
  std::vector<std::vector<int64_t>> indptr_;
  std::vector<std::string> indices_, values_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LATENT_RECORDS_H_
