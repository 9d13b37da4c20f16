#ifndef CUPOLA_SERVER_ENGINE_ASK_ACTIVATIONS_H_
#define CUPOLA_SERVER_ENGINE_ASK_ACTIVATIONS_H_

#include "absl/status/statusor.h"
#include "server/engine/question.h"
#include "server/engine/requests.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer.
absl::StatusOr<Question> AskActivations(const ActivationsRequest& request,
                                        const Sources& sources,
                                        const Limits& limits);
ActivationsAnswer AnswerActivations(const Question& question,
                                    Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_ACTIVATIONS_H_
