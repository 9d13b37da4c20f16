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
// the pattern, so that nothing of the size [heads, q, s, d_head] exists. Or, by
// heads, what each of them adds: z[q, h] . W_enc[rows of h, latent].
//
// Record: as AttributionAnalysis', the components being the prompt's positions
// or the heads: values FLOAT32 [rows, tokens or heads, n], total FLOAT32 [rows,
// n], bias FLOAT32 [n].
struct AttentionQuery {
  std::vector<int64_t> latents;
  bool by_head = false;
  bool mean = false;  // by_head only: over each sequence's rows
};

class AttentionAttributionAnalysis : public Analysis {
 public:
  AttentionAttributionAnalysis(
      std::shared_ptr<const dictionary::Dictionary> dictionary, int layer,
      AttentionQuery query);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const AttentionQuery& query);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const int layer_;
  const AttentionQuery query_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ATTENTION_ATTRIBUTION_H_
