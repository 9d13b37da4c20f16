#include "server/analysis/feature_statistics_set.h"

#include "server/analysis/accumulator.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

static_assert(Accumulator<FeatureStatisticsSet>);

FeatureStatisticsSet::FeatureStatisticsSet(
    const std::vector<FeatureStatisticsOptions>& options)
    : each_(options.begin(), options.end()) {}

double FeatureStatisticsSet::Bytes(
    const std::vector<FeatureStatisticsOptions>& options) {
  double bytes = 0;
  for (const auto& each : options) bytes += FeatureStatistics::Bytes(each);
  return bytes;
}

absl::Status FeatureStatisticsSet::Merge(const FeatureStatisticsSet& other) {
  bool same = other.size() == size();
  for (int64_t i = 0; same && i < size(); ++i) {
    same = other[i].options() == each_[i].options();
  }
  if (!same) {
    return absl::InvalidArgumentError(
        "feature statistics of other options cannot be merged");
  }
  for (int64_t i = 0; i < size(); ++i) {
    RETURN_IF_ERROR(each_[i].Merge(other[i]));
  }
  return absl::OkStatus();
}

absl::Status FeatureStatisticsSet::Save(storage::StateWriter* state) const {
  for (const FeatureStatistics& each : each_) {
    RETURN_IF_ERROR(each.Save(state));
  }
  return absl::OkStatus();
}

absl::Status FeatureStatisticsSet::Restore(storage::StateReader* state) {
  for (FeatureStatistics& each : each_) {
    RETURN_IF_ERROR(each.RestorePart(state));
  }
  return AtEnd(*state);
}

}  // namespace cupola::analysis
