#ifndef CUPOLA_SERVER_ANALYSIS_ROW_PRODUCTS_H_
#define CUPOLA_SERVER_ANALYSIS_ROW_PRODUCTS_H_

#include <cstdint>

namespace cupola::analysis {

// Inner products of rows that lie anywhere, float32 on the CPU:
//   out[i * stride + j] = a[i] . b[j],  i < a_rows, j < b_rows
// of rows of `d` values. Reading rows where they lie spares the copy that a
// matrix product of gathered rows begins with. Each product is summed in the
// same order whatever stands beside it, so that equal rows have equal products,
// to the bit: 16 running sums, the i-th of entries i, i + 16, ..., then sums of
// halves. Each entry thus passes d / 16 + 1 roundings on its way through the
// running sum and 5 behind it: the error is below (d / 16 + 8) 2^-24
// sum |a_m b_m|. Pure; any thread may call.
void MultiplyRows(const float* const* a, int64_t a_rows, const float* const* b,
                  int64_t b_rows, int64_t d, float* out, int64_t stride);

// The factor above, of sum |a_m b_m|.
double RowProductError(int64_t d);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ROW_PRODUCTS_H_
