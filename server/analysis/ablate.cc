#include "server/analysis/ablate.h"

#include <utility>

#include "server/analysis/ablation_group.h"
#include "server/analysis/changed_passes.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

AblateAnalysis::AblateAnalysis(
    std::shared_ptr<const dictionary::Dictionary> dictionary,
    model::HookPoint hook_in, model::HookPoint hook_out, AblateOptions options)
    : dictionary_(std::move(dictionary)),
      hook_in_(hook_in),
      hook_out_(hook_out),
      options_(options) {}

storage::Digest AblateAnalysis::Identity(const storage::Digest& dictionary,
                                         dictionary::Half half,
                                         const AblateOptions& options) {
  return storage::Hasher("ablate/2")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInt(static_cast<int64_t>(options.mode))
      .AddInt(options.answers)
      .AddInt(options.together)
      .AddInt(options.later)
      .Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> AblateAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  const int64_t per_token = KeptBytesPerToken(
      *pass.model, StartLayer(hook_out_, pass.model->config()));
  std::vector<std::vector<storage::Array>> records;
  for (const std::vector<Placed>& group : GroupsThatFit(sequences, per_token)) {
    ASSIGN_OR_RETURN(
        std::vector<std::vector<storage::Array>> more,
        AblationGroup(*dictionary_, hook_in_, hook_out_, options_, pass, group)
            .Run());
    std::move(more.begin(), more.end(), std::back_inserter(records));
  }
  return records;
}

}  // namespace cupola::analysis
