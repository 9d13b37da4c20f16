#ifndef CUPOLA_SERVER_ANALYSIS_ABLATE_H_
#define CUPOLA_SERVER_ANALYSIS_ABLATE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

enum class AblateMode : uint8_t {
  // y - activation * decoder row: the dictionary's error stays.
  kSubtract = 1,
  // decode(activations with the latent at zero): the error goes too.
  kReconstruct = 2,
};

struct AblateOptions {
  AblateMode mode = AblateMode::kSubtract;
  int64_t answers = 0;  // given tokens per prompt; 0: the one that comes next
  // Each latent is taken away at all of a prompt's positions at once, instead
  // of at one of them at a time.
  bool together = false;
  // Also the losses behind the position: those of all tokens.
  bool later = false;

  // No part of the question: what the losses of one batch may hold.
  int64_t max_record_bytes = int64_t{1} << 31;
};

// What the model's output loses when a latent is taken away, latent by latent:
// the clean prompt is run once, each ablation recomputes the layers behind the
// dictionary at the positions that it can reach and that are read.
//
// A place is where latents are taken away: one position of a prompt, or
// (together) all its positions. Each place is read once without an ablation
// (its bases: the clean run and, with kReconstruct, the full reconstruction),
// and once for each of its latents. Read is the output at the place's position;
// of a place that is several, the mean of all the prompt's losses, and the
// answers at the last token but one.
//
// Sequence::positions: ascending, unique. Sequence::lists: the answers
// (options.answers of them), then of each place its latents, ascending; none:
// all that are active there (anywhere there).
//
// Record, n being the latents of all places, p the places, b the bases and m =
// max(answers, 1):
//   latent UINT32 [n], position INT32 [n] (together: -1), place INT32 [n]
//   activation FLOAT32 [n], the largest of the place; 0: not active, and
//     ablating it changes nothing
//   loss FLOAT32 [n] (NaN behind the last token), logprob FLOAT32 and rank
//     INT32 [n, m]; the same three of the bases, [p, b] and [p, b, m]
// and with `later`, over the losses from the place's first position on:
//   their mean FLOAT32 [n], the losses of all tokens FLOAT32 [n, tokens - 1],
//   and both of the bases.
class AblateAnalysis : public Analysis {
 public:
  AblateAnalysis(std::shared_ptr<const dictionary::Dictionary> dictionary,
                 model::HookPoint hook_in, model::HookPoint hook_out,
                 AblateOptions options);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const AblateOptions& options);

  std::set<model::HookPoint> captures() const override { return {}; }
  // RESOURCE_EXHAUSTED with both numbers: more losses than max_record_bytes.
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const model::HookPoint hook_in_, hook_out_;
  const AblateOptions options_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ABLATE_H_
