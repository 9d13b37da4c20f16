#include "server/analysis/feature_similarities.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/analysis/accumulator.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

namespace {

static_assert(Accumulator<FeatureSimilarities>);

// How often who waits for another's work looks whether it should go on.
constexpr absl::Duration kPoll = absl::Milliseconds(50);

}  // namespace

FeatureSimilarities::FeatureSimilarities(
    const std::vector<FeatureSimilarityOptions>& options)
    : each_(options.begin(), options.end()) {
  for (size_t i = 0; i < options.size(); ++i) {
    assigned_.push_back(std::make_unique<Assigned>());
  }
}

double FeatureSimilarities::Bytes(
    const std::vector<FeatureSimilarityOptions>& options) {
  double bytes = 0, most = 0;
  for (const auto& each : options) {
    bytes += FeatureSimilarity::Bytes(each);
    const double pairs = static_cast<double>(each.a_latents) *
                         static_cast<double>(each.b_latents);
    const int copies = each.a_latents > each.b_latents ? 2 : 1;
    most = std::max(most, copies * sizeof(float) * pairs);
  }
  return bytes + most;
}

absl::Status FeatureSimilarities::Add(const SparseView& a,
                                      const std::vector<SparseView>& others) {
  if (others.size() != each_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("activations of ", others.size(),
                     " dictionaries; accepted: of ", each_.size()));
  }
  for (const SparseView& other : others) {
    if (other.rows == a.rows) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("activations of ", a.rows, " and of ", other.rows,
                     " tokens; accepted: of the same tokens"));
  }
  for (size_t i = 0; i < each_.size(); ++i) {
    RETURN_IF_ERROR(each_[i].Add(a, others[i]));
  }
  return absl::OkStatus();
}

absl::Status FeatureSimilarities::Merge(const FeatureSimilarities& other) {
  bool same = other.each_.size() == each_.size();
  for (size_t i = 0; same && i < each_.size(); ++i) {
    same = other.each_[i].options() == each_[i].options();
  }
  if (!same) {
    return absl::InvalidArgumentError(
        "feature similarities of other options cannot be merged");
  }
  for (size_t i = 0; i < each_.size(); ++i) {
    RETURN_IF_ERROR(each_[i].Merge(other.each_[i]));
  }
  return absl::OkStatus();
}

absl::Status FeatureSimilarities::Save(storage::StateWriter* state) const {
  for (const FeatureSimilarity& each : each_) {
    RETURN_IF_ERROR(each.Save(state));
  }
  return absl::OkStatus();
}

absl::Status FeatureSimilarities::Restore(storage::StateReader* state) {
  for (FeatureSimilarity& each : each_) {
    RETURN_IF_ERROR(each.RestorePart(state));
  }
  return AtEnd(*state);
}

const FeatureSimilarity& FeatureSimilarities::Finished(int64_t i) const {
  Assigned& state = *assigned_[i];
  absl::MutexLock lock(&state.mu);
  if (!state.finished) each_[i].Finish();
  state.finished = true;
  return each_[i];
}

absl::StatusOr<AssignedFeatures> FeatureSimilarities::AssignedTo(
    int64_t i, const std::function<absl::Status()>& poll) const {
  Assigned& state = *assigned_[i];
  {
    absl::MutexLock lock(&state.mu);
    if (!state.features.matched.empty()) return state.features;
  }
  {
    const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(computing_->mu) {
      return !computing_->now;
    };
    absl::MutexLock lock(&computing_->mu);
    while (!computing_->mu.AwaitWithTimeout(absl::Condition(&free), kPoll)) {
      RETURN_IF_ERROR(poll());
    }
    computing_->now = true;
  }
  // Given up, it is the next one's to compute.
  const auto done = absl::MakeCleanup([this] {
    absl::MutexLock lock(&computing_->mu);
    computing_->now = false;
  });
  {
    absl::MutexLock lock(&state.mu);
    if (!state.features.matched.empty()) return state.features;
  }
  ASSIGN_OR_RETURN(AssignedFeatures features,
                   AssignFeatures(each_[i].Cosines(), poll));
  absl::MutexLock lock(&state.mu);
  state.features = features;
  return features;
}

absl::StatusOr<Matching> FeatureSimilarities::MatchingWith(
    int64_t i, DeadPolicy policy,
    const std::function<absl::Status()>& poll) const {
  const FeatureSimilarity& similarity = Finished(i);
  RETURN_IF_ERROR(CheckPolicy(policy, similarity.options().a_latents,
                              similarity.options().b_latents));
  ASSIGN_OR_RETURN(AssignedFeatures assigned, AssignedTo(i, poll));
  return MatchingOf(std::move(assigned), similarity.DeadOfA(),
                    similarity.DeadOfB(), policy);
}

}  // namespace cupola::analysis
