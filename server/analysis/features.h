#ifndef CUPOLA_SERVER_ANALYSIS_FEATURES_H_
#define CUPOLA_SERVER_ANALYSIS_FEATURES_H_

#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// Which latents of a dictionary fire: SAELens' encode on the activations at the
// dictionary's input hook.
//
// Record: indptr INT64 [rows + 1], indices UINT32 [entries], values FLOAT32
// [entries]; see dictionary::EncodeOptions for what is kept.
class FeaturesAnalysis : public Analysis {
 public:
  FeaturesAnalysis(std::shared_ptr<const dictionary::Dictionary> dictionary,
                   model::HookPoint hook, dictionary::EncodeOptions options);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const dictionary::EncodeOptions& options);

  std::set<model::HookPoint> captures() const override { return {hook_}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const model::HookPoint hook_;
  const dictionary::EncodeOptions options_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_FEATURES_H_
