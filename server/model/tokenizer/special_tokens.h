#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_SPECIAL_TOKENS_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_SPECIAL_TOKENS_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/model/json.h"

namespace cupola::model::tokenizer {

// What the files beside tokenizer.json say of a tokenizer.
struct SpecialTokens {
  std::optional<std::string> bos;
  std::optional<std::string> eos;
  std::optional<std::string> unk;
  bool add_prefix_space = false;  // where there is no tokenizer.json
};

// Reads FOLDER/tokenizer_config.json and, for what that does not mention,
// FOLDER/special_tokens_map.json. A token is a string or an object with its
// "content"; null in the first file means that there is none. Missing files say
// nothing. INVALID_ARGUMENT: malformed.
absl::StatusOr<SpecialTokens> ReadSpecialTokens(const std::string& folder);

// The id that a "post_processor" puts in front of a text, if it does.
// INVALID_ARGUMENT: malformed.
absl::StatusOr<std::optional<int64_t>> FindFirstSpecialId(const Json& json);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_SPECIAL_TOKENS_H_
