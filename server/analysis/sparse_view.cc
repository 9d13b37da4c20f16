#include "server/analysis/sparse_view.h"

namespace cupola::analysis {

SparseView ViewRows(const dictionary::SparseRows& rows) {
  return {rows.indptr.size(0) - 1, rows.columns,
          rows.indptr.const_data_ptr<int64_t>(),
          rows.indices.const_data_ptr<int32_t>(),
          rows.values.const_data_ptr<float>()};
}

SparseView ViewRows(const storage::Array& indptr, const storage::Array& indices,
                    const storage::Array& values, int64_t columns) {
  return {indptr.shape[0] - 1, columns,
          reinterpret_cast<const int64_t*>(indptr.bytes.data()),
          reinterpret_cast<const int32_t*>(indices.bytes.data()),
          reinterpret_cast<const float*>(values.bytes.data())};
}

}  // namespace cupola::analysis
