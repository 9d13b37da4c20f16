#ifndef CUPOLA_SERVER_ANALYSIS_LOG_BINS_H_
#define CUPOLA_SERVER_ANALYSIS_LOG_BINS_H_

#include <bit>
#include <cstdint>
#include <vector>

namespace cupola::analysis {

// Fixed edges for values above 0 whose range nobody knows beforehand: each
// octave [2^e, 2^(e+1)) from 2^first_octave on is cut into per_octave equal
// parts, so that an edge is a float exactly and the bin of a value is in its
// bits. In front of them one bin for what is below, behind them one for what
// is above.
struct LogBins {
  int32_t first_octave = -14;   // -126 to 127
  int32_t octaves = 28;         // 1 to 254, up to 2^128 at most
  int32_t log2_per_octave = 2;  // 0 to 8

  // Bins, the two outer ones included.
  int64_t size() const {
    return (static_cast<int64_t>(octaves) << log2_per_octave) + 2;
  }
  // value: finite, > 0.
  int64_t Of(float value) const {
    const int32_t part =
        std::bit_cast<int32_t>(value) >> (23 - log2_per_octave);
    const int64_t bin =
        int64_t{part} - ((first_octave + 127) << log2_per_octave) + 1;
    return bin < 0 ? 0 : bin >= size() ? size() - 1 : bin;
  }
  // [size() - 1], ascending: bin i is [edge i - 1, edge i).
  std::vector<double> Edges() const;

  bool IsValid() const;
  friend bool operator==(const LogBins&, const LogBins&) = default;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LOG_BINS_H_
