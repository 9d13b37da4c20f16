#ifndef CUPOLA_SERVER_ANALYSIS_BOOSTS_H_
#define CUPOLA_SERVER_ANALYSIS_BOOSTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "storage/array.h"

namespace cupola::analysis {

// Which tokens a change makes less or more likely over a set of prompts: what
// sources call a direction's log-probability boosts.
struct BoostOptions {
  int64_t top = 15;  // of each end
  // Tokens whose mean clean log-probability is below this count as unchanged:
  // they are rare, and their log-probabilities move a lot for nothing.
  double min_logprob = -9;
  std::vector<int64_t> tokens;  // only these may move; empty: all
  // Also what the means are made of, for totals over more prompts.
  bool sums = false;
};

// [sets, top] each, the largest first: the mean over the prompts of
// log_softmax(clean) - log_softmax(changed) of the tokens that lose most under
// the change (the direction boosts them), and of those that gain most. INT32
// and FLOAT32. Of equal ones the lowest token comes first.
struct BoostTable {
  storage::Array boosted_tokens, boost, deboosted_tokens, deboost;
  // With options.sums, FLOAT64 [1 + sets, d_vocab]: over the prompts, of the
  // log-probabilities as they are, then under each set.
  storage::Array sums;
};

// records: of RunAnalysis with `distribution`, one per prompt. The
// distributions, FLOAT32 [d_vocab], are array `first` of each, the clean one,
// and then every `stride` arrays, one per set.
BoostTable TabulateBoosts(
    const std::vector<std::shared_ptr<const std::vector<storage::Array>>>&
        records,
    size_t first, size_t stride, const BoostOptions& options);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_BOOSTS_H_
