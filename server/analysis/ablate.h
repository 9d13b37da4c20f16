#ifndef CUPOLA_SERVER_ANALYSIS_ABLATE_H_
#define CUPOLA_SERVER_ANALYSIS_ABLATE_H_

#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

enum class AblateMode : uint8_t {
  // y - a W_dec: the latent's contribution is taken away, the error stays.
  kSubtract = 1,
  // y becomes decode(activations with the latent at zero): the error goes too.
  kReconstruct = 2,
};

struct AblateOptions {
  AblateMode mode = AblateMode::kSubtract;
  int64_t answers = 0;  // given tokens per prompt; 0: the one that comes next
};

// What the model's output at one position of a prompt loses when a latent is
// taken away there, latent by latent: the clean prompt is run once, each latent
// recomputes one position of the layers behind it.
//
// Sequence::positions: the one position. Sequence::lists: the answers
// (options.answers of them), then the latents, ascending; none: all that are
// active there.
//
// Record, n being the latents and m = max(answers, 1): latents UINT32 [n],
// activation FLOAT32 [n] (0: not active, and ablating it changes nothing), loss
// FLOAT32 [n] of predicting the next token (NaN behind the last), logprob
// FLOAT32 and rank INT32 [n, m]; then the same three of the whole prompt, with
// one row for the clean run and, with kReconstruct, a second for the full
// reconstruction.
class AblateAnalysis : public Analysis {
 public:
  AblateAnalysis(std::shared_ptr<const dictionary::Dictionary> dictionary,
                 model::HookPoint hook_in, model::HookPoint hook_out,
                 AblateOptions options);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const AblateOptions& options);

  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const model::HookPoint hook_in_, hook_out_;
  const AblateOptions options_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ABLATE_H_
