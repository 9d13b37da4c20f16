#ifndef CUPOLA_SERVER_ANALYSIS_ATTENTION_ATTRIBUTION_H_
#define CUPOLA_SERVER_ANALYSIS_ATTENTION_ATTRIBUTION_H_

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// Attribution through attention, for a dictionary on attn.hook_z: what each
// source position s adds to a latent's pre-activation at destination q,
//   sum over heads h of pattern[h, q, s] * (v[s, h] . W_enc[rows of h, latent])
// (Neuronpedia's attention DFA). The values meet the encoder's columns before
// the pattern, so that nothing of the size [heads, q, s, d_head] exists.
//
// Record: as AttributionAnalysis', the components being the prompt's positions:
// values FLOAT32 [rows, tokens, n], total FLOAT32 [rows, n], bias FLOAT32 [n].
class AttentionAttributionAnalysis : public Analysis {
 public:
  AttentionAttributionAnalysis(
      std::shared_ptr<const dictionary::Dictionary> dictionary, int layer,
      std::vector<int64_t> latents);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const std::vector<int64_t>& latents);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const int layer_;
  const std::vector<int64_t> latents_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ATTENTION_ATTRIBUTION_H_
