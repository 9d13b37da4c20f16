#include "server/analysis/direction_statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/accumulator.h"
#include "server/analysis/option_checks.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

static_assert(Accumulator<DirectionStatistics>);

constexpr int64_t kMaxLatents = int64_t{1} << 24, kMaxTop = 10'000;
constexpr int64_t kMaxRows = int64_t{1} << 24;

struct SavedOptions {
  int64_t latents, top_k, rows_per_latent, mean_rows, first_row, variants,
      components, d_vocab;
  double active_above;

  friend bool operator==(const SavedOptions&, const SavedOptions&) = default;
};

SavedOptions ToSaved(const DirectionStatisticsOptions& options) {
  const PromptTotalsOptions& prompts = options.prompts;
  return {options.latents,    options.top_k,     options.rows_per_latent,
          options.mean_rows,  options.first_row, prompts.variants,
          prompts.components, prompts.d_vocab,   options.active_above};
}

// `values`, whose number is not above `most`.
template <typename T>
absl::Status RestoreList(storage::StateReader* state, int64_t most,
                         std::vector<T>* values) {
  int64_t size = 0;
  RETURN_IF_ERROR(state->ReadValue(&size));
  if (size < 0 || size > most) {
    return absl::DataLossError(absl::StrCat("the state has a list of ", size,
                                            "; at most ", most, " can be"));
  }
  values->resize(size);
  return RestoreVector(state, values);
}

bool Follows(const ActiveRow& before, const ActiveRow& row) {
  return before.row < row.row && row.activation > 0;
}

}  // namespace

absl::Status CheckOptions(const DirectionStatisticsOptions& options) {
  RETURN_IF_ERROR(CheckNumber("latents", options.latents, 1, kMaxLatents));
  RETURN_IF_ERROR(CheckNumber("top_k", options.top_k, 0, kMaxTop));
  RETURN_IF_ERROR(
      CheckNumber("rows_per_latent", options.rows_per_latent, 0, kMaxRows));
  RETURN_IF_ERROR(CheckNumber("mean_rows", options.mean_rows, 1, kMaxRows));
  if (std::isfinite(options.active_above) && options.active_above >= 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("active_above is ", options.active_above,
                   "; accepted: a finite number >= 0"));
}

DirectionShare ShareOf(const std::vector<float>& activations, float largest,
                       double share_of_max, double min_share, int64_t prompts) {
  const double threshold = share_of_max * largest;
  const double counted = static_cast<double>(prompts);
  double n = 1e-9, sum = 0;
  for (float activation : activations) {
    if (!(activation > threshold)) continue;
    n += 1;
    sum += activation;
  }
  if (n < min_share * counted) sum = 0;
  return {sum / n, counted > 0 ? n / counted : 0};
}

DirectionStatistics::DirectionStatistics(
    const DirectionStatisticsOptions& options)
    : options_(options),
      counts_(options.latents),
      largest_(options.latents),
      early_(options.latents),
      active_(options.latents),
      top_(options.latents, options.top_k, /*distinct_rows=*/true),
      prompts_(options.prompts) {}

double DirectionStatistics::Bytes(const DirectionStatisticsOptions& options) {
  const double of_latent =
      sizeof(int64_t) + sizeof(float) + sizeof(std::vector<float>) +
      sizeof(std::vector<ActiveRow>) +
      static_cast<double>(options.mean_rows) * sizeof(float) +
      static_cast<double>(options.rows_per_latent) * sizeof(ActiveRow);
  return static_cast<double>(options.latents) * of_latent +
         TopExamples::Bytes(options.latents, options.top_k) +
         PromptTotals::Bytes(options.prompts);
}

void DirectionStatistics::Add(const SparseView& rows, const TokenPlaces& places,
                              const std::vector<Effect>& effects) {
  for (int64_t t = 0; t < rows.rows; ++t) {
    const int64_t row = places.row[t];
    const bool scored = t + 1 == rows.rows || places.row[t + 1] != row;
    const bool early = row - options_.first_row < options_.mean_rows;
    for (int64_t i = rows.indptr[t]; i < rows.indptr[t + 1]; ++i) {
      const float value = rows.values[i];
      if (!(value > 0)) continue;
      const int32_t latent = rows.indices[i];
      largest_[latent] = std::max(largest_[latent], value);
      top_.Offer(latent, {value, places.position[t], row});
      if (!scored) continue;
      if (early) early_[latent].push_back(value);
      if (!(value > options_.active_above)) continue;
      ++counts_[latent];
      if (!HasRoom(latent)) continue;
      ActiveRow& active = active_[latent].emplace_back(
          ActiveRow{row, places.position[t], value});
      const auto effect = std::lower_bound(
          effects.begin(), effects.end(), std::make_pair(row, latent),
          [](const Effect& a, const std::pair<int64_t, int32_t>& b) {
            return std::make_pair(a.row, a.latent) < b;
          });
      if (effect == effects.end() || effect->row != row ||
          effect->latent != latent) {
        continue;
      }
      active.loss_increase = effect->loss_increase;
      active.loss_increase_encoded = effect->loss_increase_encoded;
    }
    rows_ += scored;
  }
}

absl::Status DirectionStatistics::Merge(const DirectionStatistics& other) {
  if (!(other.options_ == options_)) {
    return absl::InvalidArgumentError(
        "direction statistics of other options cannot be merged");
  }
  rows_ += other.rows_;
  for (int64_t latent = 0; latent < options_.latents; ++latent) {
    counts_[latent] += other.counts_[latent];
    largest_[latent] = std::max(largest_[latent], other.largest_[latent]);
    const std::vector<float>& early = other.early_[latent];
    const int64_t room =
        options_.mean_rows - static_cast<int64_t>(early_[latent].size());
    early_[latent].insert(
        early_[latent].end(), early.begin(),
        early.begin() + std::min<int64_t>(room, early.size()));
    for (const ActiveRow& row : other.active_[latent]) {
      if (HasRoom(latent)) active_[latent].push_back(row);
    }
  }
  top_.Merge(other.top_);
  prompts_.Merge(other.prompts_);
  return absl::OkStatus();
}

absl::Status DirectionStatistics::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(ToSaved(options_)));
  RETURN_IF_ERROR(state->AppendValue(rows_));
  RETURN_IF_ERROR(SaveVector(counts_, state));
  RETURN_IF_ERROR(SaveVector(largest_, state));
  for (int64_t latent = 0; latent < options_.latents; ++latent) {
    RETURN_IF_ERROR(
        state->AppendValue(static_cast<int64_t>(early_[latent].size())));
    RETURN_IF_ERROR(SaveVector(early_[latent], state));
    RETURN_IF_ERROR(
        state->AppendValue(static_cast<int64_t>(active_[latent].size())));
    RETURN_IF_ERROR(SaveVector(active_[latent], state));
  }
  RETURN_IF_ERROR(top_.Save(state));
  return prompts_.Save(state);
}

absl::Status DirectionStatistics::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreSame(state, ToSaved(options_)));
  RETURN_IF_ERROR(state->ReadValue(&rows_));
  RETURN_IF_ERROR(RestoreVector(state, &counts_));
  RETURN_IF_ERROR(RestoreVector(state, &largest_));
  for (int64_t latent = 0; latent < options_.latents; ++latent) {
    RETURN_IF_ERROR(RestoreList(state, std::min(rows_, options_.mean_rows),
                                &early_[latent]));
    RETURN_IF_ERROR(RestoreList(
        state, std::min(rows_, options_.rows_per_latent), &active_[latent]));
    const std::vector<ActiveRow>& active = active_[latent];
    const bool sorted =
        std::adjacent_find(active.begin(), active.end(),
                           [](const ActiveRow& a, const ActiveRow& b) {
                             return !Follows(a, b);
                           }) == active.end();
    if (!sorted || counts_[latent] < static_cast<int64_t>(active.size()) ||
        counts_[latent] > rows_ || !(largest_[latent] >= 0)) {
      return absl::DataLossError(absl::StrCat(
          "the state's rows of latent ", latent, " contradict themselves"));
    }
  }
  RETURN_IF_ERROR(top_.Restore(state));
  RETURN_IF_ERROR(prompts_.Restore(state));
  return AtEnd(*state);
}

DirectionShare DirectionStatistics::Share(int64_t latent, double share_of_max,
                                          double min_share) const {
  return ShareOf(early_[latent], largest_[latent], share_of_max, min_share,
                 std::min(rows_, options_.mean_rows));
}

}  // namespace cupola::analysis
