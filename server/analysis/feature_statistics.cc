#include "server/analysis/feature_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/analysis/accumulator.h"
#include "server/analysis/option_checks.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

static_assert(Accumulator<FeatureStatistics>);

constexpr int64_t kMaxLatents = int64_t{1} << 24;
constexpr int64_t kMaxTop = 1000, kMaxPerStratum = 100;

// All that the meaning of a state hangs on, without padding.
struct SavedOptions {
  int64_t latents, top_k, distinct_rows, per_stratum;
  int32_t first_octave, octaves, log2_per_octave, powers;

  friend bool operator==(const SavedOptions&, const SavedOptions&) = default;
};

SavedOptions ToSaved(const FeatureStatisticsOptions& options) {
  return {options.latents,
          options.top_k,
          options.distinct_rows,
          options.per_stratum,
          options.bins.first_octave,
          options.bins.octaves,
          options.bins.log2_per_octave,
          FeatureStatistics::kPowers};
}

}  // namespace

absl::Status CheckOptions(const FeatureStatisticsOptions& options) {
  RETURN_IF_ERROR(CheckNumber("latents", options.latents, 1, kMaxLatents));
  RETURN_IF_ERROR(CheckNumber("top_k", options.top_k, 0, kMaxTop));
  RETURN_IF_ERROR(
      CheckNumber("per_stratum", options.per_stratum, 0, kMaxPerStratum));
  if (!options.bins.IsValid()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "histogram: ", options.bins.octaves, " octaves from 2^",
        options.bins.first_octave, ", 2^", options.bins.log2_per_octave,
        " bins each; accepted: 2^-126 to 2^128, 2^0 to 2^8 bins each"));
  }
  return absl::OkStatus();
}

FeatureStatistics::FeatureStatistics(const FeatureStatisticsOptions& options)
    : options_(options),
      counts_(options.latents),
      sums_(options.latents),
      largest_(options.latents),
      histogram_(options.latents * options.bins.size()),
      top_(options.latents, options.top_k, options.distinct_rows),
      strata_(options.latents, options.per_stratum) {}

double FeatureStatistics::Bytes(const FeatureStatisticsOptions& options) {
  const double of_latent =
      sizeof(int64_t) + kPowers * sizeof(double) + sizeof(float) +
      static_cast<double>(options.bins.size()) * sizeof(int64_t);
  return static_cast<double>(options.latents) * of_latent +
         TopExamples::Bytes(options.latents, options.top_k) +
         ExampleStrata::Bytes(options.latents, options.per_stratum);
}

void FeatureStatistics::Add(const SparseView& rows, const TokenPlaces& places) {
  const int64_t bins = options_.bins.size();
  for (int64_t t = 0; t < rows.rows; ++t) {
    for (int64_t i = rows.indptr[t]; i < rows.indptr[t + 1]; ++i) {
      const float value = rows.values[i];
      if (!(value > 0)) continue;
      const int32_t latent = rows.indices[i];
      ++counts_[latent];
      double power = 1;
      for (double& sum : sums_[latent]) sum += power *= value;
      largest_[latent] = std::max(largest_[latent], value);
      ++histogram_[latent * bins + options_.bins.Of(value)];
      const Example example{value, places.position[t], places.row[t]};
      top_.Offer(latent, example);
      strata_.Offer(latent, example);
    }
  }
  tokens_ += rows.rows;
}

absl::Status FeatureStatistics::Merge(const FeatureStatistics& other) {
  if (!(other.options_ == options_)) {
    return absl::InvalidArgumentError(
        "feature statistics of other options cannot be merged");
  }
  tokens_ += other.tokens_;
  for (int64_t latent = 0; latent < options_.latents; ++latent) {
    counts_[latent] += other.counts_[latent];
    for (int power = 0; power < kPowers; ++power) {
      sums_[latent][power] += other.sums_[latent][power];
    }
    largest_[latent] = std::max(largest_[latent], other.largest_[latent]);
  }
  for (size_t i = 0; i < histogram_.size(); ++i) {
    histogram_[i] += other.histogram_[i];
  }
  top_.Merge(other.top_);
  strata_.Merge(other.strata_);
  return absl::OkStatus();
}

absl::Status FeatureStatistics::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(ToSaved(options_)));
  RETURN_IF_ERROR(state->AppendValue(tokens_));
  RETURN_IF_ERROR(SaveVector(counts_, state));
  RETURN_IF_ERROR(SaveVector(sums_, state));
  RETURN_IF_ERROR(SaveVector(largest_, state));
  RETURN_IF_ERROR(SaveVector(histogram_, state));
  RETURN_IF_ERROR(top_.Save(state));
  return strata_.Save(state);
}

absl::Status FeatureStatistics::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestorePart(state));
  return AtEnd(*state);
}

absl::Status FeatureStatistics::RestorePart(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreSame(state, ToSaved(options_)));
  RETURN_IF_ERROR(state->ReadValue(&tokens_));
  RETURN_IF_ERROR(RestoreVector(state, &counts_));
  RETURN_IF_ERROR(RestoreVector(state, &sums_));
  RETURN_IF_ERROR(RestoreVector(state, &largest_));
  RETURN_IF_ERROR(RestoreVector(state, &histogram_));
  RETURN_IF_ERROR(top_.Restore(state));
  RETURN_IF_ERROR(strata_.Restore(state));
  RETURN_IF_ERROR(CheckCounts(counts_, tokens_));
  RETURN_IF_ERROR(CheckCounts(histogram_, tokens_));
  RETURN_IF_ERROR(CheckSums(largest_));
  for (const auto& powers : sums_) RETURN_IF_ERROR(CheckSums(powers));
  return absl::OkStatus();
}

double FeatureStatistics::Density(int64_t latent) const {
  return tokens_ == 0 ? 0 : static_cast<double>(counts_[latent]) / tokens_;
}

double FeatureStatistics::MeanOfActive(int64_t latent) const {
  return counts_[latent] == 0 ? 0 : sums_[latent][0] / counts_[latent];
}

std::vector<int64_t> FeatureStatistics::Histogram(int64_t latent) const {
  const auto first = histogram_.begin() + latent * options_.bins.size();
  return {first, first + options_.bins.size()};
}

std::vector<int64_t> FeatureStatistics::DeadLatents() const {
  std::vector<int64_t> dead;
  for (int64_t latent = 0; latent < options_.latents; ++latent) {
    if (counts_[latent] == 0) dead.push_back(latent);
  }
  return dead;
}

std::vector<std::vector<Example>> FeatureStatistics::OfIntervals(
    int64_t latent, int64_t intervals, int64_t each) const {
  std::vector<std::vector<Example>> drawn;
  const double largest = largest_[latent];
  for (int64_t i = 0; i < intervals; ++i) {
    const double high = i + 1 == intervals
                            ? std::numeric_limits<double>::infinity()
                            : largest * (i + 1) / intervals;
    drawn.push_back(strata_.Draw(latent, largest * i / intervals, high, each));
  }
  return drawn;
}

}  // namespace cupola::analysis
