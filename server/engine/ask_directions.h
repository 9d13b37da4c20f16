#ifndef CUPOLA_SERVER_ENGINE_ASK_DIRECTIONS_H_
#define CUPOLA_SERVER_ENGINE_ASK_DIRECTIONS_H_

#include "absl/status/statusor.h"
#include "server/engine/direction_requests.h"
#include "server/engine/question.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entries it
// names, and from the records to the answer.
absl::StatusOr<Question> AskDirectionAblation(
    const DirectionAblationRequest& request, const Sources& sources,
    const Limits& limits);
DirectionAblationAnswer AnswerDirectionAblation(const Question& question,
                                                Answered answered);

absl::StatusOr<Question> AskSweep(const SweepRequest& request,
                                  const Sources& sources, const Limits& limits);
SweepAnswer AnswerSweep(const Question& question, Answered answered);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_DIRECTIONS_H_
