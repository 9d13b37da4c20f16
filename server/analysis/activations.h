#ifndef CUPOLA_SERVER_ANALYSIS_ACTIVATIONS_H_
#define CUPOLA_SERVER_ANALYSIS_ACTIVATIONS_H_

#include <set>
#include <vector>

#include "server/analysis/analysis.h"

namespace cupola::analysis {

// The tensors of a forward pass at hook points, as TransformerLens'
// run_with_cache returns them.
//
// Record: one array per hook, in the order asked: [positions, ...HookShape] in
// `dtype`. Attention scores and patterns are [positions, n_heads, keys], keys
// being the prompt's length.
class ActivationsAnalysis : public Analysis {
 public:
  ActivationsAnalysis(std::vector<model::HookPoint> hooks,
                      storage::DType dtype);
  static storage::Digest Identity(const std::vector<model::HookPoint>& hooks,
                                  storage::DType dtype);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::vector<model::HookPoint> hooks_;
  const storage::DType dtype_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ACTIVATIONS_H_
