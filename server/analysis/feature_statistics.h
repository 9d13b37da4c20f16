#ifndef CUPOLA_SERVER_ANALYSIS_FEATURE_STATISTICS_H_
#define CUPOLA_SERVER_ANALYSIS_FEATURE_STATISTICS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/example_strata.h"
#include "server/analysis/log_bins.h"
#include "server/analysis/sparse_view.h"
#include "server/analysis/top_examples.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct FeatureStatisticsOptions {
  int64_t latents = 0;
  int64_t top_k = 20;         // max-activating contexts kept of a latent
  bool distinct_rows = true;  // ... at most one of a row of the dataset
  int64_t per_stratum = 5;    // see ExampleStrata; 0: no examples of intervals
  LogBins bins;               // of the histogram of activations

  friend bool operator==(const FeatureStatisticsOptions&,
                         const FeatureStatisticsOptions&) = default;
};

// INVALID_ARGUMENT names the option, its value and what is accepted.
absl::Status CheckOptions(const FeatureStatisticsOptions& options);

// What one pass over a corpus tells about every latent of a dictionary: how
// often it is active, how strongly, where most, and where less. An Accumulator;
// its memory is Bytes(options), whatever the corpus. Everything but the sums
// has the same bits in whatever order and parts the corpus was read.
class FeatureStatistics {
 public:
  static constexpr uint32_t kVersion = 1;
  static constexpr int kPowers = 4;

  // REQUIRES: CheckOptions is OK.
  explicit FeatureStatistics(const FeatureStatisticsOptions& options);
  static double Bytes(const FeatureStatisticsOptions& options);

  // REQUIRES: rows.columns == options.latents. No token is added twice.
  void Add(const SparseView& rows, const TokenPlaces& places);
  absl::Status Merge(const FeatureStatistics& other);

  // Body: the options (i64 latents, top_k, distinct_rows, per_stratum, i32
  // first_octave, octaves, log2_per_octave, powers), i64 tokens, then i64
  // count[latents], f64 sums[latents, 4], f32 largest[latents], i64
  // histogram[latents, bins], TopExamples' body, ExampleStrata's.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);
  // The same of a state that goes on behind.
  absl::Status RestorePart(storage::StateReader* state);

  const FeatureStatisticsOptions& options() const { return options_; }
  int64_t tokens() const { return tokens_; }
  // Tokens at which the latent was active.
  int64_t Count(int64_t latent) const { return counts_[latent]; }
  // Count by tokens; 0 where there are no tokens.
  double Density(int64_t latent) const;
  // The sum of activation^power, power 1 to kPowers.
  double PowerSum(int64_t latent, int power) const {
    return sums_[latent][power - 1];
  }
  // Of the activations above 0; 0 where there were none.
  double MeanOfActive(int64_t latent) const;
  float Largest(int64_t latent) const { return largest_[latent]; }
  // [bins.size()], the latent's part of the histogram.
  std::vector<int64_t> Histogram(int64_t latent) const;
  std::vector<int64_t> DeadLatents() const;  // never active; ascending
  // The max-activating contexts, the best first.
  std::vector<Example> Top(int64_t latent) const { return top_.Of(latent); }
  // Interval i of `intervals` is [i, i + 1) parts of the latent's maximum (the
  // last one includes it); of each at most `each` examples, ExampleStrata's.
  std::vector<std::vector<Example>> OfIntervals(int64_t latent,
                                                int64_t intervals,
                                                int64_t each) const;

 private:
  const FeatureStatisticsOptions options_;
  int64_t tokens_ = 0;
  std::vector<int64_t> counts_;                    // [latents]
  std::vector<std::array<double, kPowers>> sums_;  // [latents]
  std::vector<float> largest_;                     // [latents]
  std::vector<int64_t> histogram_;                 // [latents, bins]
  TopExamples top_;
  ExampleStrata strata_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_FEATURE_STATISTICS_H_
