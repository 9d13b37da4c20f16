#ifndef CUPOLA_SERVER_ANALYSIS_RUN_GROUP_H_
#define CUPOLA_SERVER_ANALYSIS_RUN_GROUP_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/changed_passes.h"
#include "server/analysis/patch_sources.h"
#include "server/analysis/readout.h"
#include "server/analysis/run.h"

namespace cupola::analysis {

// What a changed copy of a prompt takes, whatever is read of it.
inline constexpr int64_t kBytesPerVariant = 1024;

// One group of a run's prompts, few enough for their clean state to be kept
// (see GroupsThatFit): the clean pass once, then the sets of interventions,
// some at a time, so that what they show before it becomes records stays within
// RunOptions::work_bytes. Used once, on one thread; all given outlives this.
class RunGroup {
 public:
  RunGroup(const RunOptions& options, const Dictionaries& dictionaries,
           const Pass& pass, const std::vector<Placed>& sequences);

  // One record per sequence: see RunAnalysis.
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run();

  // Bytes that one set holds for each row that is read.
  static int64_t BytesPerRow(const RunOptions& options,
                             const model::ModelConfig& config, int64_t longest);

 private:
  // What one prompt showed under one set of interventions (or none).
  struct Shown {
    std::map<model::HookPoint, at::Tensor> values;  // [positions, ...]
    Readout readout;
  };
  using Variants = std::vector<std::vector<Shown>>;  // [prompt][variant]

  const Sequence& sequence(size_t prompt) const {
    return *sequences_[prompt].sequence;
  }
  size_t SetsAtOnce() const;
  absl::Status ShowClean(ChangedPasses& passes);
  at::Tensor AnswersOf(const Sequence& sequence) const;
  absl::Status MakeCopies(size_t first_set, size_t sets);
  // Puts what the batch changed in place of the clean values.
  absl::Status ShowChanged(const ChangedBatch& batch);
  void Distribute(const ChangedBatch& batch,
                  const std::vector<at::Tensor>& reached, const Readout& all);

  absl::Status AddRecords(const Variants& shown);
  void AddReadout(const Readout& readout, size_t prompt,
                  std::vector<storage::Array>* record) const;
  storage::Array LossOf(const Readout& readout, size_t prompt) const;

  const RunOptions& options_;
  const Dictionaries& dictionaries_;
  const Pass& pass_;
  const std::vector<Placed>& sequences_;
  PatchSources sources_;
  std::vector<at::Tensor> answers_;  // by prompt
  std::vector<size_t> next_list_;    // by prompt: the next set's first list
  Variants clean_;                   // of one variant
  Variants shown_;                   // the sets that are being run
  std::vector<ChangedCopy> copies_;
  std::vector<size_t> variant_of_;  // of each copy
  std::vector<std::vector<storage::Array>> records_;
  int64_t latent_bytes_ = 0;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_RUN_GROUP_H_
