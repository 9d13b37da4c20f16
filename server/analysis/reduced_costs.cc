#include "server/analysis/reduced_costs.h"

#include <algorithm>
#include <limits>

#include "server/dictionary/vectorize.h"

namespace cupola::analysis {
namespace {

constexpr int64_t kLanes = 16;

// The smallest of a block that `at` gives, with what else it does.
template <typename At>
[[gnu::always_inline]] inline double SmallestOf(int64_t begin, int64_t end,
                                                const At& at) {
  double lanes[kLanes];
  for (double& lane : lanes) lane = std::numeric_limits<double>::infinity();
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      const double value = at(i + j);
      lanes[j] = value < lanes[j] ? value : lanes[j];
    }
  }
  double smallest = lanes[0];
  for (int64_t j = 1; j < kLanes; ++j) smallest = std::min(smallest, lanes[j]);
  for (; i < end; ++i) smallest = std::min(smallest, at(i));
  return smallest;
}

template <typename T>
[[gnu::always_inline]] inline void Reduce(const T* row, double sign,
                                          const double* duals, int64_t n,
                                          double* reduced, double* smallest) {
  for (int64_t begin = 0; begin < n; begin += kCostBlock) {
    *smallest++ =
        SmallestOf(begin, std::min(begin + kCostBlock, n), [=](int64_t j) {
          const double value = sign * static_cast<double>(row[j]) - duals[j];
          reduced[j] = value;
          return value;
        });
  }
}

template <typename T>
[[gnu::always_inline]] inline void Relax(const T* row, double sign,
                                         const double* duals, double offset,
                                         int64_t source, int64_t n,
                                         double* distances, int64_t* sources,
                                         double* smallest) {
  for (int64_t begin = 0; begin < n; begin += kCostBlock) {
    *smallest++ =
        SmallestOf(begin, std::min(begin + kCostBlock, n), [=](int64_t j) {
          const double now =
              sign * static_cast<double>(row[j]) - duals[j] - offset;
          const double before = distances[j];
          const bool less = now < before;
          sources[j] = less ? source : sources[j];
          distances[j] = less ? now : before;
          return less ? now : before;
        });
  }
}

}  // namespace

CUPOLA_CLONES void ReduceCosts(const double* row, double sign,
                               const double* duals, int64_t n, double* reduced,
                               double* smallest_of_blocks) {
  Reduce(row, sign, duals, n, reduced, smallest_of_blocks);
}

CUPOLA_CLONES void ReduceCosts(const float* row, double sign,
                               const double* duals, int64_t n, double* reduced,
                               double* smallest_of_blocks) {
  Reduce(row, sign, duals, n, reduced, smallest_of_blocks);
}

CUPOLA_CLONES void RelaxDistances(const double* row, double sign,
                                  const double* duals, double offset,
                                  int64_t source, int64_t n, double* distances,
                                  int64_t* sources,
                                  double* smallest_of_blocks) {
  Relax(row, sign, duals, offset, source, n, distances, sources,
        smallest_of_blocks);
}

CUPOLA_CLONES void RelaxDistances(const float* row, double sign,
                                  const double* duals, double offset,
                                  int64_t source, int64_t n, double* distances,
                                  int64_t* sources,
                                  double* smallest_of_blocks) {
  Relax(row, sign, duals, offset, source, n, distances, sources,
        smallest_of_blocks);
}

}  // namespace cupola::analysis
