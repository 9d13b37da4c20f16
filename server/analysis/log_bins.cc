#include "server/analysis/log_bins.h"

#include <cmath>

namespace cupola::analysis {

std::vector<double> LogBins::Edges() const {
  std::vector<double> edges;
  const int64_t parts = int64_t{1} << log2_per_octave;
  for (int64_t i = 0; i <= octaves * parts; ++i) {
    const double within = 1 + static_cast<double>(i % parts) / parts;
    edges.push_back(
        std::ldexp(within, first_octave + static_cast<int>(i / parts)));
  }
  return edges;
}

bool LogBins::IsValid() const {
  return first_octave >= -126 && first_octave <= 127 && octaves >= 1 &&
         octaves <= 254 && first_octave + octaves <= 128 &&
         log2_per_octave >= 0 && log2_per_octave <= 8;
}

}  // namespace cupola::analysis
