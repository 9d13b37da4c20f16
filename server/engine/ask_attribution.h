#ifndef CUPOLA_SERVER_ENGINE_ASK_ATTRIBUTION_H_
#define CUPOLA_SERVER_ENGINE_ASK_ATTRIBUTION_H_

#include "absl/status/statusor.h"
#include "server/engine/attribution_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer.
absl::StatusOr<Question> AskAttribute(const AttributeRequest& request,
                                      const Sources& sources,
                                      const Limits& limits);
AttributeAnswer AnswerAttribute(const Question& question, Answered answered);

absl::StatusOr<Question> AskLogitLens(const LogitLensRequest& request,
                                      const Sources& sources,
                                      const Limits& limits);
LogitLensAnswer AnswerLogitLens(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_ATTRIBUTION_H_
