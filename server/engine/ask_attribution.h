#ifndef CUPOLA_SERVER_ENGINE_ASK_ATTRIBUTION_H_
#define CUPOLA_SERVER_ENGINE_ASK_ATTRIBUTION_H_

#include "absl/status/statusor.h"
#include "server/engine/attribution_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entries it
// names, and from the records to the answer.
absl::StatusOr<Question> AskAttribute(const AttributeRequest& request,
                                      const Sources& sources,
                                      const Limits& limits);
AttributeAnswer AnswerAttribute(const Question& question, Answered answered);

// What a request with `reference` asks first: the mean of every component as
// the norm before the neurons shows it, over the reference prompts' positions
// and then over these prompts. Its answer goes into the request by
// WithReference, which is then asked as any other.
absl::StatusOr<Question> AskReference(const AttributeRequest& request,
                                      const Sources& sources,
                                      const Limits& limits);
AttributeAnswer AnswerReference(const Question& question, Answered answered);
AttributeRequest WithReference(AttributeRequest request,
                               AttributeAnswer reference);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_ATTRIBUTION_H_
