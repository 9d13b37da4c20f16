#ifndef CUPOLA_SERVER_ANALYSIS_LOGIT_ROWS_H_
#define CUPOLA_SERVER_ANALYSIS_LOGIT_ROWS_H_

#include <cstdint>

// Reductions of one row of logits on the CPU, in plain loops that the compiler
// turns into vector instructions: a row stays in a core's cache from one to the
// next. Pure functions; any thread may call. A row with a NaN has NaN for its
// sum, and no logit of it is greater than another.

namespace cupola::analysis {

// log(sum(exp(row))), within 1e-6 of the exact value relative to the larger of
// it and 1. n >= 1.
double LogSumExp(const float* row, int64_t n);

// How many entries are greater than `value`.
int64_t CountAbove(const float* row, int64_t n, float value);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LOGIT_ROWS_H_
