#ifndef CUPOLA_SERVER_ANALYSIS_LAYERS_JACOBIAN_H_
#define CUPOLA_SERVER_ANALYSIS_LAYERS_JACOBIAN_H_

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/layers_record.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// How a feature moves another across layers and positions: with x the tensor
// where the input dictionary decodes and out_i(q) an output latent at position
// q, the derivative of out_i(q) by t at t = 0 while x at position s becomes
// x + t W_dec[j]; what the dictionary leaves of x stays as it is. The rest of
// the model answers as block_vjp.h tells. W_dec's rows are scaled as the
// dictionary decodes at s, with the token's own statistics held; the output
// dictionary's run-time normalisation contributes its derivative, under
// `frozen` too, which is about the model. Computed by vector-Jacobian products:
// an output latent's encoder column goes back through the layers between, once
// for all input latents and all sources.
//
// Record: LayersRecord's.
class LayersJacobianAnalysis : public Analysis {
 public:
  using DictionaryPtr = std::shared_ptr<const dictionary::Dictionary>;

  // `max_bytes`: of a record, as of JacobianAnalysis.
  LayersJacobianAnalysis(DictionaryPtr in, DictionaryPtr out,
                         LayersJacobianOptions options, int64_t max_bytes);
  static storage::Digest Identity(const storage::Digest& in,
                                  dictionary::Half in_half,
                                  const storage::Digest& out,
                                  dictionary::Half out_half,
                                  const LayersJacobianOptions& options);

  // None: it makes passes of its own, whose inside it looks into.
  std::set<model::HookPoint> captures() const override { return {}; }
  // RESOURCE_EXHAUSTED where one prompt alone is too long to be kept.
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  class Group;

  const DictionaryPtr in_, out_;
  const LayersJacobianOptions options_;
  const int64_t max_bytes_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LAYERS_JACOBIAN_H_
