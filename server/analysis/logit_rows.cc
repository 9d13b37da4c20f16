#include "server/analysis/logit_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "server/dictionary/vectorize.h"

namespace cupola::analysis {
namespace {

// Sums side by side, so that a reduction needs no order of its own.
constexpr int64_t kLanes = 32;
// Entries per block: short enough for a float32 sum of them to be exact to
// 1e-6, which then goes into a double.
constexpr int64_t kBlock = 1024;

CUPOLA_CLONES float Largest(const float* row, int64_t n) {
  float lanes[kLanes];
  for (int64_t j = 0; j < kLanes; ++j) lanes[j] = row[0];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      lanes[j] = lanes[j] < row[i + j] ? row[i + j] : lanes[j];
    }
  }
  float largest = lanes[0];
  for (int64_t j = 1; j < kLanes; ++j) largest = std::max(largest, lanes[j]);
  for (; i < n; ++i) largest = std::max(largest, row[i]);
  return largest;
}

// exp(x) for x <= 0, within 2e-7 of it: 2^t with t = x log2(e) split into an
// integer, which becomes the exponent, and a rest in [-1/2, 1/2], whose power
// is the Taylor series of exp(rest ln 2).
inline float ExpOfNegative(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds
  const float t = std::max(x, -87.0f) * 1.44269504f;
  const float whole = (t + kRound) - kRound;
  const float rest = t - whole;
  float power = 1.54035304e-4f;
  power = power * rest + 1.33335581e-3f;
  power = power * rest + 9.61812911e-3f;
  power = power * rest + 5.55041087e-2f;
  power = power * rest + 2.40226507e-1f;
  power = power * rest + 6.93147181e-1f;
  power = power * rest + 1.0f;
  const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return power * scale;
}

CUPOLA_CLONES float SumOfExp(const float* row, int64_t n, float largest) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += ExpOfNegative(row[i + j] - largest);
    }
  }
  for (; i < n; ++i) lanes[0] += ExpOfNegative(row[i] - largest);
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

CUPOLA_CLONES int64_t Count(const float* row, int64_t n, float value) {
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += row[i] > value ? 1 : 0;
  return count;
}

CUPOLA_CLONES bool HasNan(const float* row, int64_t n) {
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += row[i] != row[i] ? 1 : 0;
  return count != 0;
}

}  // namespace

double LogSumExp(const float* row, int64_t n) {
  if (HasNan(row, n)) return std::nan("");
  const float largest = Largest(row, n);
  if (std::isinf(largest)) return largest;
  double sum = 0;
  for (int64_t i = 0; i < n; i += kBlock) {
    sum += SumOfExp(row + i, std::min(kBlock, n - i), largest);
  }
  return std::log(sum) + largest;
}

int64_t CountAbove(const float* row, int64_t n, float value) {
  return Count(row, n, value);
}

}  // namespace cupola::analysis
