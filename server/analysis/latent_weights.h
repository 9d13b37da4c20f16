#ifndef CUPOLA_SERVER_ANALYSIS_LATENT_WEIGHTS_H_
#define CUPOLA_SERVER_ANALYSIS_LATENT_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <set>
#include <variant>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/latent_vectors.h"
#include "server/analysis/logit_weights.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// The `top_k` latents most alike in cosine, the lowest index first among
// equals; a latent that is asked about is not its own neighbour.
struct NearestQuery {
  LatentSide side = LatentSide::kDecoder;
  std::vector<int64_t> latents;  // or:
  storage::Array vectors;        // FLOAT32 [n, width of the side]
  int64_t top_k = 0;
};

// The tokens whose logits a latent's decoder row raises and lowers most:
// W_dec[f] (W_out) W_U, with W_out (W_O) of the layer for a dictionary on
// mlp.hook_post (attn.hook_z). `gain`: see model/logit_directions.h. The final
// norm's scale and b_U are left out.
struct TokensQuery {
  std::vector<int64_t> latents;
  int64_t top = 0, bottom = 0;
  bool gain = true;
};

// The same product for all latents and a few tokens: each latent's direct
// effect on a token's logit, or on its difference to another token's.
struct LogitsQuery {
  std::vector<int64_t> tokens, incorrect;  // incorrect: as many, or none
  bool gain = true;
};

// Inner products among latents, or cosines with `normalize`; entries below
// `threshold` in absolute value are zeroed.
struct GramQuery {
  LatentSide side = LatentSide::kDecoder;
  std::vector<int64_t> latents;
  bool normalize = true;
  float threshold = 0;
};

// What feature pages show of latents: the tokens of TokensQuery, and how the
// logits of the whole vocabulary lie (see LogitWeights).
struct LogitWeightsQuery {
  std::vector<int64_t> latents;
  LogitWeightsOptions options;
};

using LatentQuery = std::variant<NearestQuery, TokensQuery, LogitsQuery,
                                 GramQuery, LogitWeightsQuery>;

// Whether the query reads the model's weights beside the dictionary's.
bool NeedsModel(const LatentQuery& query);

// What a dictionary's weights tell without any prompt. The one sequence is
// empty.
//
// Record: indices INT32 [n, k] and values FLOAT32 [n, k]: of latents (nearest)
// or tokens (the top ones, descending, then the bottom ones, ascending). For
// logits and Gram indices is empty ([0]) and values [tokens, d_sae] or [n, n].
// Of logit weights, indices and values as of tokens, then the histogram INT64
// [n, bins] and the smallest and largest logit FLOAT32 [n, 2].
class LatentWeightsAnalysis : public Analysis {
 public:
  LatentWeightsAnalysis(
      std::shared_ptr<const dictionary::Dictionary> dictionary,
      model::HookPoint hook_out, LatentQuery query);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const LatentQuery& query);

  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const model::HookPoint hook_out_;
  const LatentQuery query_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LATENT_WEIGHTS_H_
