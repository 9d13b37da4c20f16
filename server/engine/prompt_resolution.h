#ifndef CUPOLA_SERVER_ENGINE_PROMPT_RESOLUTION_H_
#define CUPOLA_SERVER_ENGINE_PROMPT_RESOLUTION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/requests.h"
#include "server/model/model.h"

namespace cupola::engine {

struct ResolvedPrompts {
  std::vector<std::vector<int32_t>> token_ids;  // BOS included
  bool prepended_bos = false;
};

// Turns prompts into token ids and checks them: at least one prompt, none
// empty, ids inside the vocabulary, none longer than the context, all together
// at most `max_tokens` (RESOURCE_EXHAUSTED; everything else INVALID_ARGUMENT).
//
// BOS goes before texts if the request says so, else if `declared` (by a
// dictionary) does, else by the model's default; nothing is prepended by
// default to a tokenizer without BOS. Token ids are used as they are. Text that
// happens to start with a literal BOS token keeps it as a token of its own.
absl::StatusOr<ResolvedPrompts> ResolvePrompts(const Prompts& prompts,
                                               std::optional<bool> declared,
                                               const model::ModelSource& model,
                                               int64_t max_tokens);

// The rows asked for: one list of non-negative positions per prompt, in the
// order given. INVALID_ARGUMENT names `field`, the position and the prompt's length.
absl::StatusOr<std::vector<std::vector<int64_t>>> ResolvePositions(
    const Positions& positions,
    const std::vector<std::vector<int32_t>>& token_ids,
    absl::string_view field = "positions");

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_PROMPT_RESOLUTION_H_
