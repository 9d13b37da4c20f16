#ifndef CUPOLA_SERVER_MODEL_FORWARD_H_
#define CUPOLA_SERVER_MODEL_FORWARD_H_

#include "absl/status/statusor.h"
#include "server/model/model.h"
#include "server/model/weights.h"

namespace cupola::model {

// INVALID_ARGUMENT for a request that the model cannot serve: an empty or too
// long batch, a token outside the vocabulary, a hook point or layer outside the
// model or before the start, a start residual of another shape.
absl::Status ValidateForward(const ModelConfig& config,
                             const ForwardRequest& request);

// The one forward pass of every family. REQUIRES: a valid request. Exceptions
// of LibTorch pass through.
absl::StatusOr<ForwardResult> RunForward(const ModelConfig& config,
                                         const Weights& weights,
                                         const ForwardRequest& request);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_FORWARD_H_
