#ifndef CUPOLA_SERVER_ENGINE_ASK_ABLATE_H_
#define CUPOLA_SERVER_ENGINE_ASK_ABLATE_H_

#include "absl/status/statusor.h"
#include "server/engine/question.h"
#include "server/engine/run_requests.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer.
absl::StatusOr<Question> AskAblate(const AblateRequest& request,
                                   const Sources& sources,
                                   const Limits& limits);
AblateAnswer AnswerAblate(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_ABLATE_H_
