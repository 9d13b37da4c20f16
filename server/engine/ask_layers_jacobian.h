#ifndef CUPOLA_SERVER_ENGINE_ASK_LAYERS_JACOBIAN_H_
#define CUPOLA_SERVER_ENGINE_ASK_LAYERS_JACOBIAN_H_

#include "absl/status/statusor.h"
#include "server/engine/begin_bridge.h"
#include "server/engine/jacobian_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// A Jacobian between two dictionaries anywhere in one model, by vector-Jacobian
// products through what lies between; `pair` has begun. INVALID_ARGUMENT for an
// input behind the output (with both hook points), a hook point that no
// derivative passes, and fields that are about one MLP alone.
absl::StatusOr<Question> AskLayersJacobian(const JacobianRequest& request,
                                           PairQuestion pair,
                                           const Sources& sources,
                                           const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_LAYERS_JACOBIAN_H_
