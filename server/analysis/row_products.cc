#include "server/analysis/row_products.h"

#include <algorithm>
#include <iterator>

#include "server/dictionary/vectorize.h"

namespace cupola::analysis {
namespace {

constexpr int64_t kLanes = 16;
// Rows of either side that are multiplied at once: 16 vectors of running sums,
// which AVX-512's registers hold beside what is added to them.
constexpr int64_t kTile = 4;

typedef float Vector __attribute__((vector_size(64)));
typedef float Unaligned __attribute__((vector_size(64), aligned(4)));

// A tile's inner products: of the whole vectors of its rows, plus `rest` (of
// the entries behind them, for each of the tile's pairs a vector of sums; null:
// there are none).
CUPOLA_CLONES void MultiplyTile(const float* const* a, const float* const* b,
                                int64_t vectors, const float* rest,
                                float* products) {
  const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
  const float *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
  Vector s[kTile][kTile] = {};
  for (int64_t m = 0; m < vectors * kLanes; m += kLanes) {
    const Vector y[kTile] = {*reinterpret_cast<const Unaligned*>(b0 + m),
                             *reinterpret_cast<const Unaligned*>(b1 + m),
                             *reinterpret_cast<const Unaligned*>(b2 + m),
                             *reinterpret_cast<const Unaligned*>(b3 + m)};
    const Vector x[kTile] = {*reinterpret_cast<const Unaligned*>(a0 + m),
                             *reinterpret_cast<const Unaligned*>(a1 + m),
                             *reinterpret_cast<const Unaligned*>(a2 + m),
                             *reinterpret_cast<const Unaligned*>(a3 + m)};
#pragma GCC unroll 4
    for (int64_t i = 0; i < kTile; ++i) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < kTile; ++j) s[i][j] += x[i] * y[j];
    }
  }
  alignas(64) float lanes[kTile * kTile][kLanes];
#pragma GCC unroll 4
  for (int64_t i = 0; i < kTile; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTile; ++j) {
      *reinterpret_cast<Vector*>(lanes[i * kTile + j]) = s[i][j];
    }
  }
  for (int64_t pair = 0; pair < kTile * kTile; ++pair) {
    float* const sums = lanes[pair];
    if (rest != nullptr) {
      for (int64_t l = 0; l < kLanes; ++l) sums[l] += rest[pair * kLanes + l];
    }
    for (int64_t l = 0; l < 8; ++l) sums[l] += sums[l + 8];
    for (int64_t l = 0; l < 4; ++l) sums[l] += sums[l + 4];
    products[pair] = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  }
}

}  // namespace

void MultiplyRows(const float* const* a, int64_t a_rows, const float* const* b,
                  int64_t b_rows, int64_t d, float* out, int64_t stride) {
  const int64_t vectors = d / kLanes, whole = vectors * kLanes;
  float rest[kTile * kTile * kLanes], products[kTile * kTile];
  for (int64_t i = 0; i < a_rows; i += kTile) {
    // A tile that is not whole repeats its last row.
    const float* tile_a[kTile];
    for (int64_t r = 0; r < kTile; ++r) {
      tile_a[r] = a[std::min(i + r, a_rows - 1)];
    }
    for (int64_t j = 0; j < b_rows; j += kTile) {
      const float* tile_b[kTile];
      for (int64_t c = 0; c < kTile; ++c) {
        tile_b[c] = b[std::min(j + c, b_rows - 1)];
      }
      if (whole < d) {
        std::fill(std::begin(rest), std::end(rest), 0.0f);
        for (int64_t pair = 0; pair < kTile * kTile; ++pair) {
          for (int64_t m = whole; m < d; ++m) {
            rest[pair * kLanes + m - whole] =
                tile_a[pair / kTile][m] * tile_b[pair % kTile][m];
          }
        }
      }
      MultiplyTile(tile_a, tile_b, vectors, whole < d ? rest : nullptr,
                   products);
      for (int64_t r = 0; r < std::min(kTile, a_rows - i); ++r) {
        for (int64_t c = 0; c < std::min(kTile, b_rows - j); ++c) {
          out[(i + r) * stride + j + c] = products[r * kTile + c];
        }
      }
    }
  }
}

double RowProductError(int64_t d) {
  constexpr double kUnit = 0x1p-24;
  return (static_cast<double>(d) / kLanes + 8) * kUnit;
}

}  // namespace cupola::analysis
