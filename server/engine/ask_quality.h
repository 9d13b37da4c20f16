#ifndef CUPOLA_SERVER_ENGINE_ASK_QUALITY_H_
#define CUPOLA_SERVER_ENGINE_ASK_QUALITY_H_

#include "absl/status/statusor.h"
#include "server/engine/attribution_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer.
absl::StatusOr<Question> AskQuality(const QualityRequest& request,
                                    const Sources& sources,
                                    const Limits& limits);
QualityAnswer AnswerQuality(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_QUALITY_H_
