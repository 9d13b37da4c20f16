#ifndef CUPOLA_SERVER_ENGINE_DIRECTION_STATISTICS_JOB_H_
#define CUPOLA_SERVER_ENGINE_DIRECTION_STATISTICS_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/direction_statistics.h"
#include "server/analysis/residual_components.h"
#include "server/engine/job_kind.h"

// The job kind "direction_statistics": what the directions of a dictionary do
// over prompts, each scored at one position (analysis/direction_statistics.h).
// A chunk is so many rows: their features, then ablations of what is active
// there, and what else the request wants.

namespace cupola::engine {

inline constexpr char kDirectionStatistics[] = "direction_statistics";

struct DirectionStatisticsRequest {
  std::string dictionary;
  std::optional<Prompts> prompts;  // exactly one of the two
  std::optional<DatasetRows> rows;
  // Of each row: the one whose next token is foretold. >= 0, or <= -2 from the
  // end. Nothing behind that token is looked at.
  int64_t position = -2;
  std::optional<model::Processing> processing;
  int64_t top_k = 20, rows_per_latent = 200, mean_rows = 1000;
  double active_above = 0.1;
  // Latents are ablated in the first rows_per_latent rows where each is active:
  // all of them, or these.
  bool ablate = true;
  std::vector<int64_t> ablate_latents;
  // Losses as they are, with the dictionary's output point set to zero and with
  // it reconstructed; of `directions` also without their contributions, and
  // reconstructed without them.
  bool losses = true;
  std::vector<int64_t> directions;
  // The residual's components towards the next token's logit.
  std::optional<analysis::ComponentLevel> attribution;
  // Of the directions' ablation: log-probabilities of the whole vocabulary in
  // so many first rows.
  int64_t boost_rows = 0;
  int64_t chunk_rows = 0;  // 0: a good number
};

struct DirectionStatisticsQuery {
  std::string job;
  // The latents with the largest means, at most max_latents of those that are
  // active in min_share of the first rows (see analysis::ShareOf), by falling
  // loss increase.
  bool table = false;
  double share_of_max = 0.17, min_share = 0.05;
  int64_t max_latents = 100;
  std::vector<int64_t> latents;  // whose rows are asked for
  // So many tokens of each end; of those with a mean clean log-probability of
  // min_logprob and more than min_count occurrences, the others do not move.
  int64_t boosts = 0;
  double min_logprob = -9;
  int64_t min_count = 0;
};
struct DirectionStatisticsAnswer {
  int64_t rows = 0, d_sae = 0;
  // The table: UINT32, FLOAT64 and, of the ablated rows' number, INT64 [n].
  Array latent, loss_increase, loss_increase_encoded, mean_activation,
      share_active, ablated;
  // [latents]: of rows where each is active INT64, its largest activation
  // FLOAT32; [latents, top_k] rows INT64 (-1: none), positions INT32, values
  // FLOAT32.
  Array count, largest, top_row, top_position, top_value;
  // INT64 [latents + 1] and, CSR, the first rows where each is active: INT64,
  // INT32, FLOAT32, FLOAT32, FLOAT32 (NaN: not ablated).
  Array active_indptr, active_row, active_position, activation, active_increase,
      active_encoded;
  // FLOAT64 [variants]: means, of increases over the first one and their
  // standard deviations.
  Array losses, increases, deviations;
  int64_t loss_rows = 0, attribution_rows = 0, boost_rows = 0;
  std::vector<std::string> components;
  Array attribution;  // FLOAT64 [components]
  // INT32 and FLOAT64 [boosts], the largest first.
  Array boosted_tokens, boost, deboosted_tokens, deboost;
};

// The errors are those of the questions a chunk asks, ResolveRows' and
// CheckOptions', and RESOURCE_EXHAUSTED with both numbers where the statistics
// would not fit.
absl::StatusOr<JobSpecification> Specify(
    const DirectionStatisticsRequest& request, const JobHost& host,
    const RequestContext& context);

absl::StatusOr<std::unique_ptr<JobWork>> MakeDirectionStatistics(
    const std::string& specification, const JobHost& host,
    const RequestContext& context);

// What a specification says beside its rows, settled.
struct DirectionSetup {
  DirectionStatisticsRequest request;  // without prompts and rows
  std::string model;
  std::string hook_out;  // full name
  std::vector<std::string> components;
  analysis::DirectionStatisticsOptions options;
};
// Of a setup with components: without prompts, positions and tokens.
AttributeRequest AttributionOf(const DirectionSetup& setup);
// `work`: MakeDirectionStatistics'.
const DirectionSetup& SetupOf(const JobWork& work);
const analysis::DirectionStatistics& DirectionsOf(const JobWork& work);

// INVALID_ARGUMENT names the field; RESOURCE_EXHAUSTED: fewer latents. `work`:
// MakeDirectionStatistics'.
absl::StatusOr<DirectionStatisticsAnswer> AnswerDirectionStatistics(
    const JobWork& work, const DirectionStatisticsQuery& query,
    const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DIRECTION_STATISTICS_JOB_H_
