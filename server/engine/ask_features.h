#ifndef CUPOLA_SERVER_ENGINE_ASK_FEATURES_H_
#define CUPOLA_SERVER_ENGINE_ASK_FEATURES_H_

#include "absl/status/statusor.h"
#include "server/engine/question.h"
#include "server/engine/requests.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer.
absl::StatusOr<Question> AskFeatures(const FeaturesRequest& request,
                                     const Sources& sources,
                                     const Limits& limits);
FeaturesAnswer AnswerFeatures(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_FEATURES_H_
