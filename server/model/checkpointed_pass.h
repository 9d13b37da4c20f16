#ifndef CUPOLA_SERVER_MODEL_CHECKPOINTED_PASS_H_
#define CUPOLA_SERVER_MODEL_CHECKPOINTED_PASS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/model/hook_point.h"
#include "server/model/model.h"

namespace cupola::model {

// A clean pass that can be gone through backwards, layer by layer, without
// having kept every layer's inside: only the residual entering each block is,
// and a block's inside is computed anew when it is asked for (Chen et al.,
// "Training deep nets with sublinear memory cost", 2016). Used from one thread;
// the model outlives it.
class CheckpointedPass {
 public:
  // Runs the batch up to the last of `captures`, keeping the residuals entering
  // layers `first` to `last`. Errors of Model::Forward.
  static absl::StatusOr<CheckpointedPass> Run(
      const Model& model, TokenBatch batch, int first, int last,
      std::set<HookPoint> captures, std::function<absl::Status()> poll);

  // What was captured, as ForwardResult has it.
  const ForwardResult& result() const { return result_; }

  // Points of one of the layers kept, [batch, longest, ...] each.
  absl::StatusOr<std::map<HookPoint, at::Tensor>> Inside(
      int layer, std::set<HookPoint> points) const;

  // What a token takes of the residuals kept, and of one block's inside.
  static int64_t BytesPerToken(const ModelConfig& config, int layers);

 private:
  CheckpointedPass(const Model& model, TokenBatch batch,
                   std::function<absl::Status()> poll);

  const Model* model_;
  TokenBatch batch_;
  std::function<absl::Status()> poll_;
  ForwardResult result_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_CHECKPOINTED_PASS_H_
