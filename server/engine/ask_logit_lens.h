#ifndef CUPOLA_SERVER_ENGINE_ASK_LOGIT_LENS_H_
#define CUPOLA_SERVER_ENGINE_ASK_LOGIT_LENS_H_

#include "absl/status/statusor.h"
#include "server/engine/attribution_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// From a request to a question, every value checked against the model it names,
// and from the records to the answer.
absl::StatusOr<Question> AskLogitLens(const LogitLensRequest& request,
                                      const Sources& sources,
                                      const Limits& limits);
LogitLensAnswer AnswerLogitLens(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_LOGIT_LENS_H_
