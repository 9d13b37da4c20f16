#ifndef CUPOLA_SERVER_ENGINE_ASK_TOKENIZE_H_
#define CUPOLA_SERVER_ENGINE_ASK_TOKENIZE_H_

#include "absl/status/statusor.h"
#include "server/engine/question.h"
#include "server/engine/requests.h"

namespace cupola::engine {

// Texts to ids, pieces and back. Needs a model's source, not its weights.
absl::StatusOr<TokenizeAnswer> AnswerTokenize(const TokenizeRequest& request,
                                              const Sources& sources,
                                              const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ASK_TOKENIZE_H_
