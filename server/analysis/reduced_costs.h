#ifndef CUPOLA_SERVER_ANALYSIS_REDUCED_COSTS_H_
#define CUPOLA_SERVER_ANALYSIS_REDUCED_COSTS_H_

#include <cstdint>

// The inner loops of an assignment (assignment.h): plain passes over one row of
// costs that the compiler turns into vector instructions, which leave the
// smallest value of each block of columns behind, so that looking for the
// smallest of all is a matter of few numbers. `sign` is 1 or -1, and the cost
// of a column sign * row[j].

namespace cupola::analysis {

inline constexpr int64_t kCostBlock = 256;

// reduced[j] = cost - duals[j].
void ReduceCosts(const double* row, double sign, const double* duals, int64_t n,
                 double* reduced, double* smallest_of_blocks);
void ReduceCosts(const float* row, double sign, const double* duals, int64_t n,
                 double* reduced, double* smallest_of_blocks);

// Where cost - duals[j] - offset is less than distances[j]: it becomes that,
// and sources[j] becomes `source`. A dual of -infinity leaves its column as it
// is.
void RelaxDistances(const double* row, double sign, const double* duals,
                    double offset, int64_t source, int64_t n, double* distances,
                    int64_t* sources, double* smallest_of_blocks);
void RelaxDistances(const float* row, double sign, const double* duals,
                    double offset, int64_t source, int64_t n, double* distances,
                    int64_t* sources, double* smallest_of_blocks);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_REDUCED_COSTS_H_
