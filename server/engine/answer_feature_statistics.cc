#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/feature_statistics_job.h"
#include "server/engine/to_array.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::FeatureStatistics;
using analysis::FeatureStatisticsOptions;
using storage::DType;

constexpr int64_t kMaxIntervals = 1024;

// Examples of one latent after another, in three arrays of one shape.
class ExampleArrays {
 public:
  explicit ExampleArrays(std::vector<int64_t> shape)
      : shape_(std::move(shape)) {
    size_t size = 1;
    for (int64_t n : shape_) size *= n;
    rows_.assign(size, -1);
    positions_.assign(size, -1);
    values_.assign(size, 0);
  }
  // From the `at`-th place on.
  void Put(size_t at, const std::vector<analysis::Example>& examples) {
    for (const analysis::Example& example : examples) {
      rows_[at] = example.row;
      positions_[at] = example.position;
      values_[at++] = example.value;
    }
  }
  void Take(Array* row, Array* position, Array* value) const {
    *row = ToArray(DType::kInt64, shape_, rows_);
    *position = ToArray(DType::kInt32, shape_, positions_);
    *value = ToArray(DType::kFloat32, shape_, values_);
  }

 private:
  const std::vector<int64_t> shape_;
  std::vector<int64_t> rows_;
  std::vector<int32_t> positions_;
  std::vector<float> values_;
};

}  // namespace

absl::StatusOr<FeatureStatisticsAnswer> AnswerFeatureStatistics(
    const JobWork& work, const FeatureStatisticsQuery& query,
    const Limits& limits) {
  const analysis::FeatureStatisticsSet& all = StatisticsOf(work);
  if (query.dictionary < 0 || query.dictionary >= all.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("dictionary is ", query.dictionary, "; accepted: 0 to ",
                     all.size() - 1, ", those of the job"));
  }
  const FeatureStatistics& totals = all[query.dictionary];
  const FeatureStatisticsOptions& options = totals.options();
  const int64_t d_sae = options.latents, first = query.first;
  if (first < 0 || first >= d_sae || query.count < 0 ||
      query.count > d_sae - first) {
    return absl::InvalidArgumentError(
        absl::StrCat("first and count are ", first, " and ", query.count,
                     "; accepted: latents from 0 to ", d_sae - 1));
  }
  if (query.intervals < 0 || query.intervals > kMaxIntervals ||
      query.each < 0 || query.each > kMaxIntervals ||
      (query.intervals > 0) != (query.each > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "intervals and each are ", query.intervals, " and ", query.each,
        "; accepted: both 0, or both 1 to ", kMaxIntervals));
  }
  const int64_t n = query.count > 0 ? query.count : d_sae - first;
  const int64_t bins = query.histogram ? options.bins.size() : 0;
  const int64_t top_k = query.top ? options.top_k : 0;
  const double of_latent =
      60.0 + 8.0 * bins + 16.0 * top_k + 16.0 * query.intervals * query.each;
  RETURN_IF_ERROR(CheckAnswerBytes(of_latent * n, limits));

  std::vector<int64_t> count, histogram;
  std::vector<double> density, mean, powers;
  std::vector<float> max;
  ExampleArrays top({n * (top_k > 0), top_k});
  ExampleArrays intervals(
      {n * (query.intervals > 0), query.intervals, query.each});
  for (int64_t i = 0; i < n; ++i) {
    const int64_t latent = first + i;
    count.push_back(totals.Count(latent));
    density.push_back(totals.Density(latent));
    mean.push_back(totals.MeanOfActive(latent));
    for (int power = 1; power <= FeatureStatistics::kPowers; ++power) {
      powers.push_back(totals.PowerSum(latent, power));
    }
    max.push_back(totals.Largest(latent));
    if (bins > 0) {
      const std::vector<int64_t> of_one = totals.Histogram(latent);
      histogram.insert(histogram.end(), of_one.begin(), of_one.end());
    }
    if (top_k > 0) top.Put(i * top_k, totals.Top(latent));
    if (query.intervals == 0) continue;
    const auto drawn = totals.OfIntervals(latent, query.intervals, query.each);
    for (size_t k = 0; k < drawn.size(); ++k) {
      intervals.Put((i * query.intervals + k) * query.each, drawn[k]);
    }
  }
  FeatureStatisticsAnswer answer;
  answer.tokens = totals.tokens();
  answer.d_sae = d_sae;
  answer.dead = static_cast<int64_t>(totals.DeadLatents().size());
  answer.first = first;
  answer.options = options;
  const std::vector<double> edges =
      bins > 0 ? options.bins.Edges() : std::vector<double>();
  answer.count = ToArray(DType::kInt64, {n}, count);
  answer.density = ToArray(DType::kFloat64, {n}, density);
  answer.mean = ToArray(DType::kFloat64, {n}, mean);
  answer.powers =
      ToArray(DType::kFloat64, {n, FeatureStatistics::kPowers}, powers);
  answer.max = ToArray(DType::kFloat32, {n}, max);
  answer.histogram = ToArray(DType::kInt64, {n * (bins > 0), bins}, histogram);
  answer.edges =
      ToArray(DType::kFloat64, {static_cast<int64_t>(edges.size())}, edges);
  top.Take(&answer.top_row, &answer.top_position, &answer.top_value);
  intervals.Take(&answer.interval_row, &answer.interval_position,
                 &answer.interval_value);
  return answer;
}

}  // namespace cupola::engine
