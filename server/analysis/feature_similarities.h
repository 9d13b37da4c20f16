#ifndef CUPOLA_SERVER_ANALYSIS_FEATURE_SIMILARITIES_H_
#define CUPOLA_SERVER_ANALYSIS_FEATURE_SIMILARITIES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/analysis/feature_matching.h"
#include "server/analysis/feature_similarity.h"

namespace cupola::analysis {

// One dictionary's features against those of several others, such as
// checkpoints': a FeatureSimilarity with each. An Accumulator of these. What
// is asked of the result may be asked from many threads, once nothing is added
// any more.
class FeatureSimilarities {
 public:
  static constexpr uint32_t kVersion = FeatureSimilarity::kVersion;

  explicit FeatureSimilarities(
      const std::vector<FeatureSimilarityOptions>& options);
  // With what one assignment takes while it is computed: the cosines of a pair
  // of dictionaries, twice where there are more latents than partners.
  static double Bytes(const std::vector<FeatureSimilarityOptions>& options);

  // The same tokens in all dictionaries; `others`: as many as options.
  // INVALID_ARGUMENT where there are more of one.
  absl::Status Add(const SparseView& a, const std::vector<SparseView>& others);
  absl::Status Merge(const FeatureSimilarities& other);
  // Body: FeatureSimilarity's, of each.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

  int64_t size() const { return static_cast<int64_t>(each_.size()); }
  const FeatureSimilarityOptions& options(int64_t i) const {
    return each_[i].options();
  }
  // Finished: ready to be asked for cosines.
  const FeatureSimilarity& Finished(int64_t i) const;
  // MatchingOf the exact assignment, which hangs on no policy: it is computed,
  // with no lock held, when it is first asked for, and kept. All cosines are in
  // memory for so long and no longer, of one pair at a time. Who asks meanwhile
  // waits; `poll` is asked now and then whether the answer is still
  // wanted (assignment.h), and what it says is the error.
  absl::StatusOr<Matching> MatchingWith(
      int64_t i, DeadPolicy policy,
      const std::function<absl::Status()>& poll) const;

 private:
  struct Assigned {
    absl::Mutex mu;
    bool finished ABSL_GUARDED_BY(mu) = false;
    AssignedFeatures features ABSL_GUARDED_BY(mu);  // once computed
  };
  absl::StatusOr<AssignedFeatures> AssignedTo(
      int64_t i, const std::function<absl::Status()>& poll) const;

  mutable std::vector<FeatureSimilarity> each_;      // finished under its lock
  std::vector<std::unique_ptr<Assigned>> assigned_;  // of each
  // Of which there is one at a time.
  struct Computing {
    absl::Mutex mu;
    bool now ABSL_GUARDED_BY(mu) = false;
  };
  std::unique_ptr<Computing> computing_ = std::make_unique<Computing>();
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_FEATURE_SIMILARITIES_H_
