#ifndef CUPOLA_SERVER_ANALYSIS_RUN_H_
#define CUPOLA_SERVER_ANALYSIS_RUN_H_

#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/edits.h"
#include "server/analysis/intervention.h"
#include "server/analysis/placed_lists.h"

namespace cupola::analysis {

// A dictionary whose latents are read.
struct LatentReader {
  int dictionary = 0;  // which of the question's
  model::HookPoint hook;
};

struct RunOptions {
  std::vector<InterventionSet> sets;
  // Whether the model's output is read at all: loss, log-probabilities, ranks.
  bool output = true;
  // One loss per prompt, the mean over its positions, instead of theirs; then
  // log-probabilities and ranks are those of given answers alone.
  bool mean_loss = false;
  int64_t answers = 0;  // given tokens per prompt; 0: the one that comes next
  int64_t top = 0;      // largest logits
  // The log-probabilities of all tokens; every sequence has one position then.
  bool distribution = false;
  std::vector<LatentReader> readers;
  std::vector<model::HookPoint> hooks;

  // No part of the question. What the sets hold at a time: so many of them are
  // run together, at least one. What the records of one batch may hold: latents
  // are only counted when they are there.
  int64_t work_bytes = int64_t{1} << 28;
  int64_t max_record_bytes = int64_t{1} << 31;
};

// Arrays that come first in a record's part of a variant: see RunAnalysis.
inline constexpr size_t kReadoutArrays = 5;

// Runs each prompt clean and under every set of interventions, sharing what the
// interventions leave alone, and reads both at the sequence's positions. Memory
// is bounded however many prompts and sets there are: see RunGroup.
//
// Sequence::lists: the answers (options.answers of them), then each set's
// interventions as placed_lists.h says.
//
// Record: for the clean run and then for each set
//   loss FLOAT32 [positions], of predicting the next token, NaN at the last
//     token (mean_loss: [1], over those that are no NaN); logprob FLOAT32 and
//     rank INT32 [positions, max(answers, 1)]; top tokens INT32 and top logits
//     FLOAT32 [positions, top]: without `output` these five have no rows,
//   with `distribution` the log-probabilities, FLOAT32 [d_vocab],
//   of each reader indptr INT64, indices UINT32, values FLOAT32,
//   of each hook FLOAT32 [positions, ...HookShape] (square points: [positions,
//     n_heads, keys]).
class RunAnalysis : public Analysis {
 public:
  RunAnalysis(RunOptions options, Dictionaries dictionaries);
  static storage::Digest Identity(
      const RunOptions& options,
      const std::vector<storage::Digest>& dictionaries);

  std::set<model::HookPoint> captures() const override { return {}; }
  // RESOURCE_EXHAUSTED, with both numbers: the records are larger than
  // max_record_bytes, or one prompt's clean state than what may be kept.
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const RunOptions options_;
  const Dictionaries dictionaries_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_RUN_H_
