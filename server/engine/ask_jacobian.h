#ifndef CUPOLA_SERVER_ENGINE_ASK_JACOBIAN_H_
#define CUPOLA_SERVER_ENGINE_ASK_JACOBIAN_H_

#include "absl/status/statusor.h"
#include "server/engine/jacobian_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entries it
// names, and from the records to the answer.
absl::StatusOr<Question> AskJacobian(const JacobianRequest& request,
                                     const Sources& sources,
                                     const Limits& limits);
// Prompts of few active latents are padded to those of many: RESOURCE_EXHAUSTED
// where the answer would hold more than `max_bytes`.
absl::Status CheckPaddedJacobians(const Records& records, int64_t max_bytes);
JacobianAnswer AnswerJacobian(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_JACOBIAN_H_
