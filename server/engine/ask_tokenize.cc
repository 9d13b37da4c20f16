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
    // Embeddings are often padded: an id of the model's that no token has
    // stands for no text.
    std::vector<int32_t> known;
    for (int32_t id : ids) {
      absl::StatusOr<std::string> piece = tokenizer.Piece(id);
      if (piece.ok()) known.push_back(id);
      tokens.pieces.push_back(piece.ok() ? *std::move(piece) : "");
    }
    ASSIGN_OR_RETURN(tokens.text, tokenizer.Decode(known));
    tokens.ids = std::move(ids);
  }
  return answer;
}

}  // namespace cupola::engine
