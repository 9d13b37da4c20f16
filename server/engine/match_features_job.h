#ifndef CUPOLA_SERVER_ENGINE_MATCH_FEATURES_JOB_H_
#define CUPOLA_SERVER_ENGINE_MATCH_FEATURES_JOB_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/feature_matching.h"
#include "server/engine/job_kind.h"

// The job kind "match_features": which features of one dictionary are which of
// others, by their activations on the same tokens (analysis/
// feature_similarity.h, feature_matching.h; source notebook E).

namespace cupola::engine {

inline constexpr char kMatchFeatures[] = "match_features";

struct MatchFeaturesRequest {
  std::string dictionary;  // the one that is explained
  // In the order of training where they are checkpoints'. Their models read
  // the token ids that the first one's tokenizer made.
  std::vector<std::string> others;
  std::optional<Prompts> prompts;  // exactly one of the two
  std::optional<DatasetRows> rows;
  Positions positions;
  std::optional<model::Processing> processing;  // else each dictionary's
  float min_activation = 0;                     // of all
  // The products' sums; false: float32. Unset: float64 where it fits.
  std::optional<bool> float64;
  int64_t chunk_tokens = 0;  // 0: a good number
};

// What is asked of a result, about the first dictionary and one of the others.
struct FeatureMatchingQuery {
  std::string job;
  int64_t other = 0;      // its index
  bool matching = false;  // the assignment and its distances
  analysis::DeadPolicy dead_policy = analysis::DeadPolicy::kCorrect;
  std::vector<double> thresholds;  // fractions matched below each distance
  // Features that appear at this checkpoint and stay; -1: not asked for.
  int64_t appearing_at = -1;
  double appearing_threshold = 0.5;
  std::vector<int64_t> rows;  // latents whose cosines are asked for: all, or
  int64_t top = 0;            // ... where above 0 the largest of each
};
// Whether it needs an assignment, which may take minutes.
inline bool Assigns(const FeatureMatchingQuery& query) {
  return query.matching || !query.thresholds.empty() || query.appearing_at >= 0;
}
struct FeatureMatchingAnswer {
  int64_t tokens = 0, a_latents = 0, b_latents = 0, counted = 0;
  bool float64 = false;  // of the products' sums
  Array matched;         // INT64 [a_latents], or [0]
  Array distances;       // FLOAT64 [a_latents], or [0]
  Array fractions;       // FLOAT64 [thresholds]
  Array appearing;       // INT64
  Array cosines;         // FLOAT32 [rows, b_latents or top], or [0]
  Array alike;           // INT64 [rows, top]: which of B's latents; or [0]
};

// Every row is checked for every model: the errors are AskFeatures',
// ResolveRows' and JobRows::CheckFit's, and RESOURCE_EXHAUSTED with both
// numbers where the products, or the activations of a chunk in all
// dictionaries together, would not fit.
absl::StatusOr<JobSpecification> Specify(const MatchFeaturesRequest& request,
                                         const JobHost& host,
                                         const RequestContext& context);

absl::StatusOr<std::unique_ptr<JobWork>> MakeMatchFeatures(
    const std::string& specification, const JobHost& host,
    const RequestContext& context);

// INVALID_ARGUMENT names the field; RESOURCE_EXHAUSTED: fewer rows. An
// assignment may take minutes: `poll` is asked whether it is still wanted, and
// what it says is an error, too. `work`: MakeMatchFeatures'.
absl::StatusOr<FeatureMatchingAnswer> AnswerFeatureMatching(
    const JobWork& work, const FeatureMatchingQuery& query,
    const Limits& limits, const std::function<absl::Status()>& poll);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_MATCH_FEATURES_JOB_H_
