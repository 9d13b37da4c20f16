#ifndef CUPOLA_SERVER_ENGINE_ASK_GENERATE_H_
#define CUPOLA_SERVER_ENGINE_ASK_GENERATE_H_

#include "absl/status/statusor.h"
#include "server/engine/generate_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// From a request to a question, every value checked, and from the records to
// the answer. The question tells the request's sink of every token, also of
// those that the cache has.
absl::StatusOr<Question> AskGenerate(const GenerateRequest& request,
                                     const Sources& sources,
                                     const Limits& limits);
GenerateAnswer AnswerGenerate(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_GENERATE_H_
