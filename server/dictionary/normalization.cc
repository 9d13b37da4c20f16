#include "server/dictionary/normalization.h"

#include <cmath>

namespace cupola::dictionary {
namespace {

constexpr double kLayerNormEpsilon = 1e-5;

// [rows, 1]
at::Tensor RescaleFactor(const at::Tensor& x) {
  const at::Tensor norm = at::linalg_vector_norm(x, 2, {-1}, true);
  return std::sqrt(static_cast<double>(x.size(-1))) / norm;
}

at::Tensor Mean(const at::Tensor& x) { return x.mean(-1, true); }

at::Tensor UnbiasedStd(const at::Tensor& centred) {
  return centred.std(/*dim=*/-1, /*unbiased=*/true, /*keepdim=*/true);
}

}  // namespace

at::Tensor NormalizeInput(Normalize normalize, const at::Tensor& x) {
  switch (normalize) {
    case Normalize::kNone:
    case Normalize::kExpectedAverageOnlyIn:
      return x;
    case Normalize::kConstantNormRescale:
      return x * RescaleFactor(x);
    case Normalize::kLayerNorm: {
      const at::Tensor centred = x - Mean(x);
      return centred / (UnbiasedStd(centred) + kLayerNormEpsilon);
    }
  }
  return x;
}

at::Tensor DenormalizeOutput(Normalize normalize, const at::Tensor& x,
                             const at::Tensor& reconstruction) {
  switch (normalize) {
    case Normalize::kNone:
    case Normalize::kExpectedAverageOnlyIn:
      return reconstruction;
    case Normalize::kConstantNormRescale:
      return reconstruction / RescaleFactor(x);
    case Normalize::kLayerNorm: {
      const at::Tensor mean = Mean(x);
      return reconstruction * UnbiasedStd(x - mean) + mean;
    }
  }
  return reconstruction;
}

bool DenormalizeNeedsInput(Normalize normalize) {
  return normalize == Normalize::kConstantNormRescale ||
         normalize == Normalize::kLayerNorm;
}

}  // namespace cupola::dictionary
