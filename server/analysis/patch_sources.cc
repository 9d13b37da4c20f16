#include "server/analysis/patch_sources.h"

#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

absl::StatusOr<at::Tensor> PatchSources::Of(const PlacedIntervention& placed) {
  const model::HookPoint& point = placed.intervention->hook;
  auto [found, missing] = sources_.try_emplace({point, placed.source});
  if (missing) {
    model::ForwardRequest request;
    request.batch = model::TokenBatch::Pack({&placed.source});
    request.captures = {point};
    request.poll = pass_.poll;
    ASSIGN_OR_RETURN(model::ForwardResult forward,
                     pass_.model->Forward(request));
    found->second = forward.captures.at(point)[0];
  }
  const at::Tensor index = at::tensor(placed.source_positions, at::kLong);
  return found->second.index_select(0, index.to(found->second.device()));
}

}  // namespace cupola::analysis
