#ifndef CUPOLA_SERVER_ANALYSIS_RUN_H_
#define CUPOLA_SERVER_ANALYSIS_RUN_H_

#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/edits.h"
#include "server/analysis/intervention.h"

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
  int64_t answers = 0;  // given tokens per prompt; 0: the one that comes next
  int64_t top = 0;      // largest logits
  std::vector<LatentReader> readers;
  std::vector<model::HookPoint> hooks;
};

// Runs each prompt clean and under every set of interventions, sharing what the
// interventions leave alone, and reads both at the sequence's positions.
//
// Sequence::lists: the answers (options.answers of them), then of each
// intervention of each set its positions and, for a patch, the tokens of its
// source and the source's positions.
//
// Record: for the clean run and then for each set
//   loss FLOAT32 [positions], of predicting the next token, NaN at the last
//     token; logprob FLOAT32 and rank INT32 [positions, max(answers, 1)]; top
//     tokens INT32 and top logits FLOAT32 [positions, top]: without `output`
//     these five have no rows,
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
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const RunOptions options_;
  const Dictionaries dictionaries_;
};

// One sequence's interventions of one set, from its lists. `next`: the place in
// the lists; advances.
std::vector<PlacedIntervention> PlacedOf(const InterventionSet& set,
                                         const Sequence& sequence,
                                         size_t* next);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_RUN_H_
