#ifndef CUPOLA_SERVER_ENGINE_ASK_RUN_H_
#define CUPOLA_SERVER_ENGINE_ASK_RUN_H_

#include "absl/status/statusor.h"
#include "server/engine/question.h"
#include "server/engine/run_requests.h"

namespace cupola::engine {

// From a request to a question, every value checked against the entry it names,
// and from the records to the answer. Errors name an intervention as
// "interventions[1].heads", of several sets as "interventions[0][1].heads".
absl::StatusOr<Question> AskRun(const RunRequest& request,
                                const Sources& sources, const Limits& limits);
RunAnswer AnswerRun(const Question& question, Answered answered);

// The answers' token ids, checked: one list per prompt, all of one length, in
// the vocabulary; per prompt empty where none are given.
absl::StatusOr<std::vector<std::vector<int64_t>>> CheckAnswers(
    const std::vector<std::vector<uint32_t>>& answers, size_t prompts,
    const model::ModelConfig& config);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_RUN_H_
