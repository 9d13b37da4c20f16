#ifndef CUPOLA_SERVER_ANALYSIS_FEATURE_STATISTICS_SET_H_
#define CUPOLA_SERVER_ANALYSIS_FEATURE_STATISTICS_SET_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/feature_statistics.h"
#include "storage/state_file.h"

namespace cupola::analysis {

// Feature statistics of several dictionaries over the same tokens. An
// Accumulator; the state of one dictionary is FeatureStatistics' own.
class FeatureStatisticsSet {
 public:
  static constexpr uint32_t kVersion = FeatureStatistics::kVersion;

  // REQUIRES: CheckOptions is OK of each.
  explicit FeatureStatisticsSet(
      const std::vector<FeatureStatisticsOptions>& options);
  static double Bytes(const std::vector<FeatureStatisticsOptions>& options);

  int64_t size() const { return static_cast<int64_t>(each_.size()); }
  FeatureStatistics& operator[](int64_t i) { return each_[i]; }
  const FeatureStatistics& operator[](int64_t i) const { return each_[i]; }
  absl::Status Merge(const FeatureStatisticsSet& other);

  // Body: each one's, one behind the other.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

 private:
  std::vector<FeatureStatistics> each_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_FEATURE_STATISTICS_SET_H_
