#ifndef CUPOLA_SERVER_ANALYSIS_ABLATION_GROUP_H_
#define CUPOLA_SERVER_ANALYSIS_ABLATION_GROUP_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/ablation_records.h"
#include "server/analysis/changed_passes.h"

namespace cupola::analysis {

// One group of an ablation's prompts, few enough for their clean state to be
// kept (see GroupsThatFit): the clean pass once, from it all that there is to
// ablate, then the ablations, some at a time, so that their changed activations
// stay bounded. Used once, on one thread; all given outlives this.
class AblationGroup {
 public:
  AblationGroup(const dictionary::Dictionary& dictionary,
                const model::HookPoint& hook_in,
                const model::HookPoint& hook_out, const AblateOptions& options,
                const Pass& pass, const std::vector<Placed>& sequences);

  // One record per sequence: see AblateAnalysis.
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run();

 private:
  const Sequence& sequence(int64_t prompt) const {
    return *sequences_[prompt].sequence;
  }
  // Whether losses of more than the place's own token are read.
  bool many_losses() const { return options_.together || options_.later; }
  void FindPlaces();
  absl::Status RunClean(ChangedPasses& passes);
  absl::Status ReadClean(const at::Tensor& finals);
  absl::Status FindAblations(const at::Tensor& y);
  void AddAblations(const dictionary::SparseRows& active, size_t place);
  absl::Status AllocateChanged();
  // The first ablation behind those from `begin` on that are run together.
  size_t ChunkEnd(size_t begin) const;
  std::vector<ChangedCopy> CopiesOf(size_t begin, size_t end) const;
  absl::Status ReadBatch(const ChangedBatch& batch, size_t begin);
  // int64 [1 + answers], appended to `answers`.
  void AddAnswers(int64_t prompt, int64_t position,
                  std::vector<int64_t>* answers) const;
  // The last position that is read of a place, and the first one of a batch's
  // row.
  int64_t LastOf(const AblationFindings::Place& place) const;
  int64_t FirstRead(const ChangedBatch& batch, size_t row,
                    const AblationFindings::Place& place) const;

  const dictionary::Dictionary& dictionary_;
  const model::HookPoint hook_in_, hook_out_;
  const AblateOptions& options_;
  const Pass& pass_;
  const std::vector<Placed>& sequences_;
  const int64_t width_;    // the next token and the answers
  Intervention addition_;  // what every copy is
  const Dictionaries no_dictionaries_;
  AblationFindings found_;
  at::Tensor x_;           // float32 [rows, d_in]
  at::Tensor from_error_;  // float32 [rows, d_out], or undefined
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ABLATION_GROUP_H_
