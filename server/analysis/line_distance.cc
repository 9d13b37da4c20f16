#include "server/analysis/line_distance.h"

#include <algorithm>
#include <cmath>

#include "server/dictionary/vectorize.h"

namespace cupola::analysis {
namespace {

constexpr int64_t kLanes = 16;

float Sum(const float* lanes) {
  float sum = 0;
  for (int64_t i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

CUPOLA_CLONES void AddSquares(const float* e, int64_t d, float* lanes) {
  float sums[kLanes] = {};
  const int64_t whole = d / kLanes * kLanes;
  for (int64_t m = 0; m < whole; m += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) sums[i] += e[m + i] * e[m + i];
  }
  for (int64_t m = whole; m < d; ++m) sums[m - whole] += e[m] * e[m];
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = sums[i];
}

// Sums of (b - a) (e - a) and (b - a)^2.
CUPOLA_CLONES void AddAlong(const float* e, const float* a, const float* b,
                            int64_t d, float* along, float* squares) {
  float first[kLanes] = {}, second[kLanes] = {};
  const int64_t whole = d / kLanes * kLanes;
  for (int64_t m = 0; m < whole; m += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const float step = b[m + i] - a[m + i];
      first[i] += step * (e[m + i] - a[m + i]);
      second[i] += step * step;
    }
  }
  for (int64_t m = whole; m < d; ++m) {
    const float step = b[m] - a[m];
    first[m - whole] += step * (e[m] - a[m]);
    second[m - whole] += step * step;
  }
  for (int64_t i = 0; i < kLanes; ++i) {
    along[i] = first[i];
    squares[i] = second[i];
  }
}

CUPOLA_CLONES void AddOff(const float* e, const float* a, const float* b,
                          float t, int64_t d, float* lanes) {
  float sums[kLanes] = {};
  const int64_t whole = d / kLanes * kLanes;
  for (int64_t m = 0; m < whole; m += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const float off = e[m + i] - a[m + i] - t * (b[m + i] - a[m + i]);
      sums[i] += off * off;
    }
  }
  for (int64_t m = whole; m < d; ++m) {
    const float off = e[m] - a[m] - t * (b[m] - a[m]);
    sums[m - whole] += off * off;
  }
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = sums[i];
}

}  // namespace

float Length(const float* e, int64_t d) {
  float lanes[kLanes];
  AddSquares(e, d, lanes);
  return std::sqrt(Sum(lanes));
}

float LineDistance(const float* e, const float* a, const float* b, int64_t d) {
  float t = 0;
  float lanes[kLanes], squares[kLanes];
  if (a != b) {
    AddAlong(e, a, b, d, lanes, squares);
    const float length = Sum(squares);
    if (length > 0) t = std::clamp(Sum(lanes) / length, 0.0f, 1.0f);
  }
  AddOff(e, a, b, t, d, lanes);
  return std::sqrt(Sum(lanes));
}

std::vector<int64_t> SplitCurve(const float* rows, int64_t points, int64_t d,
                                float share, int64_t closest) {
  std::vector<int64_t> split = {0};
  std::vector<int64_t> ends = {points - 1};  // still to reach, nearest last
  while (!ends.empty()) {
    const int64_t begin = split.back(), end = ends.back();
    float off = 0;
    for (int64_t r = begin + 1; r < end && end - begin > closest; ++r) {
      off = std::max(
          off, LineDistance(rows + r * d, rows + begin * d, rows + end * d, d));
    }
    if (off > share * Length(rows + begin * d, d)) {
      ends.push_back(begin + (end - begin) / 2);
      continue;
    }
    ends.pop_back();
    if (end > begin) split.push_back(end);
  }
  return split;
}

}  // namespace cupola::analysis
