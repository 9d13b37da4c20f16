#include "server/model/checkpointed_pass.h"

#include <utility>

#include "server/model/status_macros.h"

namespace cupola::model {

CheckpointedPass::CheckpointedPass(const Model& model, TokenBatch batch,
                                   std::function<absl::Status()> poll)
    : model_(&model), batch_(std::move(batch)), poll_(std::move(poll)) {}

absl::StatusOr<CheckpointedPass> CheckpointedPass::Run(
    const Model& model, TokenBatch batch, int first, int last,
    std::set<HookPoint> captures, std::function<absl::Status()> poll) {
  CheckpointedPass pass(model, std::move(batch), std::move(poll));
  for (int layer = first; layer <= last; ++layer) {
    captures.insert({HookKind::kResidPre, layer});
  }
  ForwardRequest request;
  request.batch = pass.batch_;
  request.captures = std::move(captures);
  request.poll = pass.poll_;
  ASSIGN_OR_RETURN(pass.result_, model.Forward(request));
  return pass;
}

absl::StatusOr<std::map<HookPoint, at::Tensor>> CheckpointedPass::Inside(
    int layer, std::set<HookPoint> points) const {
  if (points.empty()) return std::map<HookPoint, at::Tensor>();
  ForwardRequest request;
  request.batch = batch_;
  request.captures = std::move(points);
  request.start_layer = layer;
  request.start_residual = result_.captures.at({HookKind::kResidPre, layer});
  request.poll = poll_;
  ASSIGN_OR_RETURN(ForwardResult inside, model_->Forward(request));
  return std::move(inside.captures);
}

int64_t CheckpointedPass::BytesPerToken(const ModelConfig& config, int layers) {
  const int64_t heads = (config.n_heads + 2 * config.n_kv_heads) *
                        config.d_head * (config.qk_norm ? 3 : 2);
  const int64_t norms = 6 * config.d_model;
  const int64_t mlp = config.d_mlp * (config.gated_mlp ? 4 : 2);
  return static_cast<int64_t>(sizeof(float)) *
         (layers * config.d_model + heads + norms + mlp);
}

}  // namespace cupola::model
