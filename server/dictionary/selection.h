#ifndef CUPOLA_SERVER_DICTIONARY_SELECTION_H_
#define CUPOLA_SERVER_DICTIONARY_SELECTION_H_

#include <cstdint>
#include <vector>

// Selecting a few entries out of a row of floats on the CPU, without a sort of
// the row. Pure functions: any thread may call, each with its own scratch. A
// NaN is never selected.

namespace cupola::dictionary {

// Working memory that a thread keeps between rows.
struct SelectionScratch {
  std::vector<float> maxima, ordered;
  std::vector<int32_t> parts, chosen;
};

// Appends the indices of the entries above `floor`, ascending, to `out`.
void SelectAbove(const float* row, int64_t n, float floor,
                 std::vector<int32_t>* out);

// Appends the indices, ascending, of the `k` largest among the entries above
// `floor` (all of them where there are fewer); the lowest index wins ties.
void SelectTopK(const float* row, int64_t n, int64_t k, float floor,
                SelectionScratch* scratch, std::vector<int32_t>* out);

// Appends the indices, ascending, of all entries that may be among the `k`
// largest above `floor` of a row that is only known to lie within
// slack + radius * lengths[i] of row[i], and of some that are not. The bound must
// leave room for four roundings of row[i]. Finite values; n >= 64 k. row[i] becomes row[i] - radius * lengths[i].
void SelectNear(const float* lengths, float radius, float slack, int64_t n,
                int64_t k, float floor, float* row, SelectionScratch* scratch,
                std::vector<int32_t>* out);

// Narrows `candidates` (ascending indices into `row`) to the k largest, with
// the same rule.
void KeepLargest(const float* row, int64_t k, std::vector<int32_t>* candidates);

// row[i] = row[i] > threshold[i] ? max(row[i], 0) : 0.
void ApplyJumpRelu(const float* threshold, int64_t n, float* row);

// row[i] = row[i] + b_gate[i] > 0 ? max(row[i] * scale[i] + b_mag[i], 0) : 0.
void ApplyGate(const float* b_gate, const float* scale, const float* b_mag,
               int64_t n, float* row);

// The number of NaN or infinite entries, and the first of them (n: none).
int64_t CountNonFinite(const float* values, int64_t n);
int64_t FirstNonFinite(const float* values, int64_t n);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_SELECTION_H_
