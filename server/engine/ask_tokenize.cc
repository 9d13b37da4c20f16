#include "server/engine/ask_tokenize.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/prompt_resolution.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

absl::StatusOr<TokenizeAnswer> AnswerTokenize(const TokenizeRequest& request,
                                              const Sources& sources,
                                              const Limits& limits) {
  ASSIGN_OR_RETURN(ResolvedPrompts resolved,
                   ResolvePrompts(request.prompts, std::nullopt, *sources.model,
                                  limits.max_tokens));
  const model::Tokenizer& tokenizer = sources.model->tokenizer();
  TokenizeAnswer answer;
  answer.prepended_bos = resolved.prepended_bos;
  for (std::vector<int32_t>& ids : resolved.token_ids) {
    TokenizeAnswer::Tokens& tokens = answer.prompts.emplace_back();
    for (int32_t id : ids) {
      ASSIGN_OR_RETURN(std::string piece, tokenizer.Piece(id));
      tokens.pieces.push_back(std::move(piece));
    }
    ASSIGN_OR_RETURN(tokens.text, tokenizer.Decode(ids));
    tokens.ids = std::move(ids);
  }
  return answer;
}

}  // namespace cupola::engine
