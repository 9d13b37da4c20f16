#ifndef CUPOLA_SERVER_ENGINE_FEATURE_STATISTICS_JOB_H_
#define CUPOLA_SERVER_ENGINE_FEATURE_STATISTICS_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/feature_statistics.h"
#include "server/analysis/feature_statistics_set.h"
#include "server/engine/job_kind.h"

// The job kind "feature_statistics": what one pass over a corpus tells about
// every latent of a dictionary, or of several (analysis/feature_statistics.h).

namespace cupola::engine {

inline constexpr char kFeatureStatistics[] = "feature_statistics";

struct FeatureStatisticsRequest {
  std::string dictionary;
  // Of the same model: one pass over the corpus is for all of them.
  std::vector<std::string> others;
  std::optional<Prompts> prompts;  // exactly one of the two
  std::optional<DatasetRows> rows;
  Positions positions;
  std::optional<model::Processing> processing;
  int64_t top_k = 20;
  bool distinct_rows = true;
  int64_t per_stratum = 5;
  analysis::LogBins bins;
  int64_t chunk_tokens = 0;  // 0: a good number
};

// What is asked of a result: of latents [first, first + count).
struct FeatureStatisticsQuery {
  std::string job;
  int64_t dictionary = 0;        // 0, or 1 + its index among the others
  int64_t first = 0, count = 0;  // 0: all from first on
  bool histogram = false, top = false;
  // Examples of so many equal intervals of 0 to a latent's maximum, `each` at
  // most of one; 0: none.
  int64_t intervals = 0, each = 0;
};
// n = latents asked for; -1 and 0 fill what a latent has no example for.
struct FeatureStatisticsAnswer {
  int64_t tokens = 0, d_sae = 0, dead = 0, first = 0;
  analysis::FeatureStatisticsOptions options;
  Array count;              // INT64 [n]
  Array density, mean;      // FLOAT64 [n]: of tokens; of the activations > 0
  Array powers;             // FLOAT64 [n, 4]: sums of activation^1 .. ^4
  Array max;                // FLOAT32 [n]
  Array histogram, edges;   // INT64 [n, bins], FLOAT64 [bins - 1]; or empty
  Array top_row;            // INT64 [n, top_k]; or [0, 0]
  Array top_position;       // INT32
  Array top_value;          // FLOAT32
  Array interval_row;       // INT64 [n, intervals, each]; or [0, 0, 0]
  Array interval_position;  // INT32
  Array interval_value;     // FLOAT32
};

// The errors are AskFeatures', ResolveRows' and CheckOptions', and
// RESOURCE_EXHAUSTED with both numbers where the statistics would not fit.
absl::StatusOr<JobSpecification> Specify(
    const FeatureStatisticsRequest& request, const JobHost& host,
    const RequestContext& context);

absl::StatusOr<std::unique_ptr<JobWork>> MakeFeatureStatistics(
    const std::string& specification, const JobHost& host,
    const RequestContext& context);

// `work`: MakeFeatureStatistics'.
const analysis::FeatureStatisticsSet& StatisticsOf(const JobWork& work);

// INVALID_ARGUMENT names the field; RESOURCE_EXHAUSTED: a smaller range.
// `work`: MakeFeatureStatistics'.
absl::StatusOr<FeatureStatisticsAnswer> AnswerFeatureStatistics(
    const JobWork& work, const FeatureStatisticsQuery& query,
    const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_FEATURE_STATISTICS_JOB_H_
