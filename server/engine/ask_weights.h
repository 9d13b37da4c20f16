#ifndef CUPOLA_SERVER_ENGINE_ASK_WEIGHTS_H_
#define CUPOLA_SERVER_ENGINE_ASK_WEIGHTS_H_

#include "absl/status/statusor.h"
#include "server/engine/question.h"
#include "server/engine/weight_requests.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer. Questions about weights have one empty
// sequence; where they need no loaded model they load none.
absl::StatusOr<Question> AskWeight(const WeightRequest& request,
                                   const Sources& sources,
                                   const Limits& limits);
WeightAnswer AnswerWeight(const Question& question, Answered answered);

absl::StatusOr<Question> AskLatentWeights(const LatentWeightsRequest& request,
                                          const Sources& sources,
                                          const Limits& limits);
LatentWeightsAnswer AnswerLatentWeights(const Question& question,
                                        Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_WEIGHTS_H_
