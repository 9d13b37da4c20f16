#ifndef CUPOLA_SERVER_ENGINE_ASK_RECONSTRUCT_H_
#define CUPOLA_SERVER_ENGINE_ASK_RECONSTRUCT_H_

#include "absl/status/statusor.h"
#include "server/engine/question.h"
#include "server/engine/requests.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer.
absl::StatusOr<Question> AskReconstruct(const ReconstructRequest& request,
                                        const Sources& sources,
                                        const Limits& limits);
ReconstructAnswer AnswerReconstruct(const Question& question,
                                    Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_RECONSTRUCT_H_
