#ifndef CUPOLA_SERVER_DICTIONARY_SPARSE_ROWS_H_
#define CUPOLA_SERVER_DICTIONARY_SPARSE_ROWS_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"

namespace cupola::dictionary {

// Active latents of some rows, CSR, on the CPU. Within a row indices ascend.
struct SparseRows {
  at::Tensor indptr;    // int64 [rows + 1]
  at::Tensor indices;   // int32 [entries]; values are < columns
  at::Tensor values;    // float32 [entries]
  int64_t columns = 0;  // d_sae
};

// Which activations Encode returns, in this order: the architecture's own
// selection (TopK competes over all latents); of those only `latents`
// (ascending, unique; empty: all); of those the activations strictly above
// min_activation (finite, >= 0); of those, per row, the top_k largest (0: all;
// the lowest index wins ties).
struct EncodeOptions {
  std::vector<int32_t> latents;
  int64_t top_k = 0;
  float min_activation = 0;
};

// INVALID_ARGUMENT naming the option, its value and what is accepted.
absl::Status CheckOptions(const EncodeOptions& options, int64_t d_sae);

// INVALID_ARGUMENT unless the three arrays are a CSR matrix of `columns`
// columns with finite values: from outside, they are hostile until checked.
// Within a row indices may come in any order.
absl::Status CheckRows(const SparseRows& rows, int64_t columns);

// Collects the rows that worker threads select. Each thread appends the rows of
// one contiguous range to a Piece of its own; Build puts them in row order.
class SparseRowsBuilder {
 public:
  struct Piece {
    int64_t first_row = 0;
    std::vector<int64_t> counts;  // per row
    std::vector<int32_t> indices;
    std::vector<float> values;
  };
  // Not thread-safe: the caller locks.
  void Add(Piece piece) { pieces_.push_back(std::move(piece)); }
  // The pieces must cover rows 0 .. rows - 1.
  SparseRows Build(int64_t rows, int64_t columns) &&;

 private:
  std::vector<Piece> pieces_;
};

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_SPARSE_ROWS_H_
