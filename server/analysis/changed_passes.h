#ifndef CUPOLA_SERVER_ANALYSIS_CHANGED_PASSES_H_
#define CUPOLA_SERVER_ANALYSIS_CHANGED_PASSES_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/analysis/edits.h"
#include "server/model/model.h"

namespace cupola::analysis {

// Many changed copies of some prompts, each computed from its first changed
// layer and position on alone (server/model/kept_state.h says why that is
// exact). First the clean pass, which keeps what the copies continue; then the
// copies, in batches of equal start.

// A prompt with interventions. Edits' positions are absolute here.
struct ChangedCopy {
  int64_t prompt = 0;          // a row of the clean pass
  std::vector<RowEdit> edits;  // at least one, with at least one position
  int64_t last = 0;  // the last position that is read; nothing after it is run
};

// Some copies, computed together. Row i is copy copies[i] from position
// first[i] on. `forward` has of the captures those that the copies' changes can
// reach; the others, and all positions before first[i], are as in the clean
// pass. `forward.logits` is there where a copy edits the logits themselves.
struct ChangedBatch {
  std::vector<size_t> copies;
  std::vector<int64_t> first;
  model::ForwardResult forward;
};

class ChangedPasses {
 public:
  // `prompts` are token rows; all given outlives this. Not thread-safe.
  ChangedPasses(const model::Model& model, const Dictionaries& dictionaries,
                std::vector<const std::vector<int32_t>*> prompts,
                std::set<model::HookPoint> captures,
                std::function<absl::Status()> poll);

  // The clean pass, keeping what `copies` continue: call it first, once.
  // RESOURCE_EXHAUSTED, with both numbers, where that would not fit.
  absl::StatusOr<model::ForwardResult> RunClean(
      const std::vector<ChangedCopy>& copies);

  // Computes all copies and hands them over batch by batch, in any order. A
  // status that `consume` returns ends it.
  absl::Status RunCopies(
      const std::vector<ChangedCopy>& copies,
      const std::function<absl::Status(const ChangedBatch&)>& consume);

 private:
  // Where a copy starts. Copies with equal starts share a pass.
  struct Start {
    int layer = 0;
    bool embeds = false;  // from the tokens: the embedding itself is changed
    bool whole = false;  // at position 0, on its own: a square point is watched
    bool logits = false;
    bool seen = false;  // something that is read comes after it
    auto operator<=>(const Start&) const = default;
  };
  struct Job {
    Start start;
    int64_t first = 0, length = 0;  // positions to compute
    size_t copy = 0;
  };
  Start StartOf(const ChangedCopy& copy) const;
  std::vector<Job> JobsOf(const std::vector<ChangedCopy>& copies) const;
  absl::StatusOr<ChangedBatch> RunBatch(const std::vector<ChangedCopy>& copies,
                                        const std::vector<Job>& jobs);
  at::Tensor StartResidual(const std::vector<ChangedCopy>& copies,
                           const std::vector<Job>& jobs) const;

  const model::Model& model_;
  const Dictionaries& dictionaries_;
  const std::vector<const std::vector<int32_t>*> prompts_;
  const std::set<model::HookPoint> captures_;
  const std::function<absl::Status()> poll_;
  std::shared_ptr<const model::KeptState> kept_;
};

// The sequences in groups whose clean passes keep a bounded number of bytes,
// each at least one.
std::vector<std::vector<Placed>> GroupsThatFit(
    const std::vector<Placed>& sequences, int64_t bytes_per_token);

// Bytes that a clean pass keeps per token to continue from `layer` on.
int64_t KeptBytesPerToken(const model::Model& model, int layer);

// The layer from which changes of `point` are continued.
int StartLayer(const model::HookPoint& point, const model::ModelConfig& config);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_CHANGED_PASSES_H_
