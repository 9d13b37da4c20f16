#ifndef CUPOLA_SERVER_ENGINE_ASK_MEAN_H_
#define CUPOLA_SERVER_ENGINE_ASK_MEAN_H_

#include "absl/status/statusor.h"
#include "server/engine/mean_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// INVALID_ARGUMENT: a hook point that the model lacks or that has no width,
// prompts of which no position is selected, a bad name.
absl::StatusOr<Question> AskMeanActivation(const MeanActivationRequest& request,
                                           const Sources& sources,
                                           const Limits& limits);

// Its info has no name: that comes with storing it.
MeanActivationAnswer AnswerMeanActivation(const Question& question,
                                          Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_MEAN_H_
