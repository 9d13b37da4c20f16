#ifndef CUPOLA_SERVER_ANALYSIS_LINE_DISTANCE_H_
#define CUPOLA_SERVER_ANALYSIS_LINE_DISTANCE_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace cupola::analysis {

// Geometry of float32 rows of `d` values on the CPU, computed in float32 with
// 16 running sums: lengths lose less than d 2^-26 + 2^-20 of themselves,
// distances also 2^-22 of the rows' largest length. Pure; any thread may call.

// |e|
float Length(const float* e, int64_t d);
// From e to the nearest point between a and b, roughly: |e - (1 - t) a - t b|
// for some t in [0, 1] that is near the best.
float LineDistance(const float* e, const float* a, const float* b, int64_t d);

// Splits a curve of `points` rows where it bends: indices, ascending, from 0 to
// points - 1, between neighbours of which no row is farther from their line
// than `share` of its length, or which are at most `closest` apart.
std::vector<int64_t> SplitCurve(const float* rows, int64_t points, int64_t d,
                                float share, int64_t closest);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LINE_DISTANCE_H_
