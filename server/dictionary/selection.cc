#include "server/dictionary/selection.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "server/dictionary/vectorize.h"

namespace cupola::dictionary {
namespace {

constexpr int64_t kLanes = 16;

// Splits a row into groups of kLanes * stride entries and takes, for each lane
// of a group, the maximum of its `stride` entries (kLanes apart). Lanes never
// meet, so the loop is a chain of vector maxima. Entries after the last whole
// group are copied: each stands for itself.
CUPOLA_CLONES void LaneMaxima(const float* row, int64_t n, int64_t stride,
                              float* maxima) {
  const int64_t group = kLanes * stride;
  const int64_t groups = n / group;
  for (int64_t g = 0; g < groups; ++g) {
    const float* in = row + g * group;
    float best[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      best[lane] = -std::numeric_limits<float>::infinity();
    }
    for (int64_t s = 0; s < stride; ++s) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const float v = in[s * kLanes + lane];
        best[lane] = v > best[lane] ? v : best[lane];
      }
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      maxima[g * kLanes + lane] = best[lane];
    }
  }
  for (int64_t i = groups * group; i < n; ++i) {
    const float v = row[i];
    maxima[groups * kLanes + i - groups * group] =
        v == v ? v : -std::numeric_limits<float>::infinity();
  }
}

CUPOLA_CLONES bool AnyAbove(const float* values, int64_t n, float floor) {
  int any = 0;
  for (int64_t i = 0; i < n; ++i) any |= values[i] > floor;
  return any != 0;
}

CUPOLA_CLONES void Subtract(const float* lengths, float radius, int64_t n,
                            float* row) {
  for (int64_t i = 0; i < n; ++i) row[i] -= radius * lengths[i];
}

CUPOLA_CLONES bool AnyReaches(const float* row, const float* lengths,
                              float radius, int64_t n, float cut) {
  int any = 0;
  for (int64_t i = 0; i < n; ++i) any |= row[i] + radius * lengths[i] > cut;
  return any != 0;
}

// The number of maxima that LaneMaxima writes.
int64_t PartCount(int64_t n, int64_t stride) {
  const int64_t groups = n / (kLanes * stride);
  return groups * kLanes + n - groups * kLanes * stride;
}

// The greatest float below x (x itself when it is -infinity): `v > Below(x)` is
// `v >= x`.
float Below(float x) {
  return std::nextafter(x, -std::numeric_limits<float>::infinity());
}

// A bound below which no entry can be among the k largest above `floor`: the
// k-th largest of any set of disjoint parts' maxima is a lower bound of the
// k-th largest entry. Candidates are strictly above what is returned.
float KthLargest(const std::vector<float>& maxima, int64_t k, float floor,
                 SelectionScratch* scratch) {
  std::vector<float>& ordered = scratch->ordered;
  const int64_t n = maxima.size();
  if (n / 4 >= 4 * k) {  // first a coarser bound, from maxima of maxima
    ordered.resize(PartCount(n, 4));
    LaneMaxima(maxima.data(), n, 4, ordered.data());
  } else {
    ordered = maxima;
  }
  if (static_cast<int64_t>(ordered.size()) < k) return floor;
  std::nth_element(ordered.begin(), ordered.begin() + (k - 1), ordered.end(),
                   std::greater<float>());
  const float coarse = std::max(floor, Below(ordered[k - 1]));
  scratch->parts.clear();
  SelectAbove(maxima.data(), n, coarse, &scratch->parts);
  ordered.clear();
  for (int32_t part : scratch->parts) ordered.push_back(maxima[part]);
  if (static_cast<int64_t>(ordered.size()) < k) return coarse;
  std::nth_element(ordered.begin(), ordered.begin() + (k - 1), ordered.end(),
                   std::greater<float>());
  return std::max(coarse, Below(ordered[k - 1]));
}

}  // namespace

CUPOLA_CLONES void ApplyJumpRelu(const float* threshold, int64_t n,
                                 float* row) {
  for (int64_t i = 0; i < n; ++i) {
    const float v = row[i];
    row[i] = v > threshold[i] && v > 0 ? v : 0;
  }
}

CUPOLA_CLONES void ApplyGate(const float* b_gate, const float* scale,
                             const float* b_mag, int64_t n, float* row) {
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = row[i] * scale[i] + b_mag[i];
    row[i] = row[i] + b_gate[i] > 0 && magnitude > 0 ? magnitude : 0;
  }
}

CUPOLA_CLONES int64_t CountNonFinite(const float* values, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    count += (bits & 0x7f800000u) == 0x7f800000u;
  }
  return count;
}

int64_t FirstNonFinite(const float* values, int64_t n) {
  constexpr int64_t kBlock = 1 << 16;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t size = std::min(kBlock, n - begin);
    if (CountNonFinite(values + begin, size) == 0) continue;
    for (int64_t i = begin;; ++i) {
      if (CountNonFinite(values + i, 1) != 0) return i;
    }
  }
  return n;
}

void SelectAbove(const float* row, int64_t n, float floor,
                 std::vector<int32_t>* out) {
  // Most blocks of a trained dictionary's row hold nothing: they cost a few
  // vector comparisons. In the others every entry is written and the position
  // advances by the comparison, without a branch to mispredict.
  constexpr int64_t kBlock = 64;
  int32_t found[kBlock];
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t size = std::min(kBlock, n - begin);
    if (!AnyAbove(row + begin, size, floor)) continue;
    int64_t count = 0;
    for (int64_t i = 0; i < size; ++i) {
      found[count] = static_cast<int32_t>(begin + i);
      count += row[begin + i] > floor;
    }
    out->insert(out->end(), found, found + count);
  }
}

void SelectNear(const float* lengths, float radius, float slack, int64_t n,
                int64_t k, float floor, float* row, SelectionScratch* scratch,
                std::vector<int32_t>* out) {
  constexpr int64_t kStride = 16, kBlock = 64;
  Subtract(lengths, radius, n, row);
  std::vector<float>& maxima = scratch->maxima;
  maxima.resize(PartCount(n, kStride));
  LaneMaxima(row, n, kStride, maxima.data());
  // No k-th largest is below the k-th largest of the lower ends.
  const float cut = KthLargest(maxima, k, floor, scratch) - 2 * slack;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, n);
    if (!AnyReaches(row + begin, lengths + begin, 2 * radius, end - begin,
                    cut)) {
      continue;
    }
    for (int64_t i = begin; i < end; ++i) {
      if (row[i] + 2 * radius * lengths[i] > cut) {
        out->push_back(static_cast<int32_t>(i));
      }
    }
  }
}

void KeepLargest(const float* row, int64_t k,
                 std::vector<int32_t>* candidates) {
  if (static_cast<int64_t>(candidates->size()) <= k) return;
  std::nth_element(candidates->begin(), candidates->begin() + k,
                   candidates->end(), [row](int32_t a, int32_t b) {
                     return row[a] != row[b] ? row[a] > row[b] : a < b;
                   });
  candidates->resize(k);
  std::sort(candidates->begin(), candidates->end());
}

void SelectTopK(const float* row, int64_t n, int64_t k, float floor,
                SelectionScratch* scratch, std::vector<int32_t>* out) {
  if (k <= 0 || n == 0) return;
  std::vector<int32_t>& chosen = scratch->chosen;
  chosen.clear();
  // Parts of 16 entries, and parts of 4 parts, while there are enough of them.
  const int64_t stride = n / 16 >= 4 * k ? 16 : n / 4 >= 4 * k ? 4 : 0;
  if (stride == 0) {
    SelectAbove(row, n, floor, &chosen);
    KeepLargest(row, k, &chosen);
    out->insert(out->end(), chosen.begin(), chosen.end());
    return;
  }
  std::vector<float>& maxima = scratch->maxima;
  maxima.resize(PartCount(n, stride));
  LaneMaxima(row, n, stride, maxima.data());
  const float bound = KthLargest(maxima, k, floor, scratch);

  // Only parts whose maximum reaches the bound can hold a winner.
  std::vector<int32_t>& parts = scratch->parts;
  parts.clear();
  SelectAbove(maxima.data(), maxima.size(), bound, &parts);
  const int64_t group = kLanes * stride;
  const int64_t grouped = n / group * kLanes;
  for (int32_t part : parts) {
    if (part >= grouped) {
      chosen.push_back(n / group * group + part - grouped);
      continue;
    }
    const int64_t first = part / kLanes * group + part % kLanes;
    for (int64_t i = first; i < first + group; i += kLanes) {
      if (row[i] > bound) chosen.push_back(static_cast<int32_t>(i));
    }
  }
  if (static_cast<int64_t>(chosen.size()) > k) {
    KeepLargest(row, k, &chosen);
  } else {
    std::sort(chosen.begin(), chosen.end());
  }
  out->insert(out->end(), chosen.begin(), chosen.end());
}

}  // namespace cupola::dictionary
