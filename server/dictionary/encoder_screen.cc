#include "server/dictionary/encoder_screen.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/base/casts.h"
#include "server/dictionary/vectorize.h"

namespace cupola::dictionary {
namespace {

// Far from float32's largest, so that no sum overflows.
constexpr double kLargest = 1e30;
// Computed lengths are within this share of the true ones.
constexpr double kRounding = 0x1p-30;

struct Squares {
  double whole = 0, rest = 0;
};

// Of x, and of what rounding to bfloat16 leaves of it: in float64, where the
// squares of all float32 values have their place.
CUPOLA_CLONES Squares SumSquares(const float* x, int64_t n) {
  constexpr int64_t kLanes = 8;
  double whole[kLanes] = {}, rest[kLanes] = {};
  const auto add = [&](int64_t i, int64_t lane) {
    const auto bits = absl::bit_cast<uint32_t>(x[i]);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
    const double value = x[i];
    const double left = value - absl::bit_cast<float>(rounded);
    whole[lane] += value * value;
    rest[lane] += left * left;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (; i < n; ++i) add(i, 0);
  Squares sums;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    sums.whole += whole[lane];
    sums.rest += rest[lane];
  }
  return sums;
}

}  // namespace

EncoderScreen::EncoderScreen(const model::SplitMatrix& encoder,
                             const at::Tensor& bias, int64_t k)
    : d_in_(encoder.in_features()) {
  constexpr int64_t kLatentsPerWinner = 64, kChunk = 1024;
  const int64_t d_sae = encoder.out_features();
  if (k <= 0 || d_sae < kLatentsPerWinner * k) return;
  at::Tensor lengths = at::empty({d_sae}, at::kFloat);
  for (int64_t first = 0; first < d_sae; first += kChunk) {
    const int64_t last = std::min(first + kChunk, d_sae);
    const at::Tensor rows = encoder.Rows(at::arange(first, last));
    const at::Tensor rests = rows - rows.to(at::kBFloat16).to(at::kFloat);
    const auto norms = [](const at::Tensor& of) {
      return at::linalg_vector_norm(of, 2, {-1}, false, at::kDouble);
    };
    const at::Tensor exact = norms(rows);
    const at::Tensor share = norms(rests) / exact.clamp_min(1e-300);
    rest_share_ = std::max(rest_share_, share.max().item<double>());
    // Rounded up: kept as float32.
    lengths.narrow(0, first, last - first).copy_(exact * (1 + 0x1p-22));
  }
  rest_share_ *= 1 + kRounding;
  longest_ = lengths.max().item<double>();
  if (bias.defined()) largest_bias_ = bias.abs().max().item<double>();
  slack_ = static_cast<float>(0x1p-21 * largest_bias_ + 0x1p-120);
  // Not of a number that is none.
  if (longest_ < kLargest && largest_bias_ < kLargest && rest_share_ < 1) {
    lengths_ = lengths;
  }
}

float EncoderScreen::Radius(const float* x) const {
  const Squares squares = SumSquares(x, d_in_);
  const double whole = std::sqrt(squares.whole) * (1 + kRounding);
  const double rest = std::sqrt(squares.rest) * (1 + kRounding);
  if (!(whole < kLargest && whole * longest_ < kLargest)) {
    return std::numeric_limits<float>::infinity();
  }
  const double sums = (2.0 * static_cast<double>(d_in_) + 64) * 0x1p-24;
  return static_cast<float>(
      (rest + (whole + rest) * rest_share_ + whole * sums) * (1 + 0x1p-22));
}

}  // namespace cupola::dictionary
