#ifndef CUPOLA_SERVER_ANALYSIS_SPARSE_VIEW_H_
#define CUPOLA_SERVER_ANALYSIS_SPARSE_VIEW_H_

#include <cstdint>

#include "server/dictionary/sparse_rows.h"
#include "storage/array.h"

namespace cupola::analysis {

// Active latents of some tokens, CSR, as accumulators take them: somebody
// else's arrays, which live as long as the view is used. Checked before:
// indptr ascends from 0, 0 <= indices < columns, each at most once in a row,
// values finite. Entries that are not above 0 are not active: accumulators
// pass over them.
struct SparseView {
  int64_t rows = 0;                  // tokens
  int64_t columns = 0;               // latents
  const int64_t* indptr = nullptr;   // [rows + 1]
  const int32_t* indices = nullptr;  // [entries]
  const float* values = nullptr;     // [entries]

  int64_t entries() const { return indptr == nullptr ? 0 : indptr[rows]; }
};

// Where each token of a view stands in the corpus.
struct TokenPlaces {
  const int64_t* row = nullptr;       // [rows]: the dataset's row
  const int32_t* position = nullptr;  // [rows]: the token's position in it
};

SparseView ViewRows(const dictionary::SparseRows& rows);

// A features record (analysis/features.h): indptr INT64, indices UINT32 (or
// INT32), values FLOAT32.
SparseView ViewRows(const storage::Array& indptr, const storage::Array& indices,
                    const storage::Array& values, int64_t columns);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_SPARSE_VIEW_H_
