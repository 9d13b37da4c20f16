#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_TOKENIZER_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cupola::model {

// A Hugging Face fast tokenizer of the BPE kind: byte-level (GPT-2, NeoX,
// Llama 3, Qwen) or with byte fallback (Llama 2, Gemma, Mistral). Encode gives
// the ids that `tokenizers` gives with add_special_tokens=False. Immutable; any
// thread may call.
class Tokenizer {
 public:
  // Reads FOLDER/tokenizer.json, or vocab.json and merges.txt (GPT-2), and
  // FOLDER/tokenizer_config.json and special_tokens_map.json where they exist.
  // "truncation" and "padding" are not applied: a text is never cut silently.
  // INVALID_ARGUMENT: a file is malformed or uses a component that is not
  // supported (named). NOT_FOUND: no tokenizer file.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(
      const std::string& folder);

  virtual ~Tokenizer() = default;

  // `text` must be valid UTF-8 (INVALID_ARGUMENT else). Special and added
  // tokens in the text become their ids, as `tokenizers` does.
  // RESOURCE_EXHAUSTED: a pre-tokenizer regex hit its match limit.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(
      absl::string_view text) const = 0;

  // The bytes of the ids as one text, as decode(skip_special_tokens=False);
  // always valid UTF-8: what is not becomes U+FFFD. INVALID_ARGUMENT: an id
  // that no token has.
  virtual absl::StatusOr<std::string> Decode(
      const std::vector<int32_t>& ids) const = 0;

  // One token's bytes as it would stand inside a text (" the", not
  // "\u0120the"); need not be valid UTF-8.
  virtual absl::StatusOr<std::string> Piece(int32_t id) const = 0;

  // Ids run from 0 to vocabulary_size() - 1 (added tokens included); a file may
  // leave holes, ids that no token has.
  virtual int32_t vocabulary_size() const = 0;
  // BOS: the bos_token of tokenizer_config.json (or special_tokens_map.json),
  // else the post-processor's, else, where no file names one, the eos token
  // (TransformerLens' rule); none for tokenizers without either.
  virtual std::optional<int32_t> bos_id() const = 0;
  // As bos_id, but only what the files name (Qwen: none).
  virtual std::optional<int32_t> declared_bos_id() const = 0;
  // The files' bytes that can change an answer, for the model's digest.
  virtual const std::string& fingerprint() const = 0;  // 32 bytes, SHA-256
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_TOKENIZER_H_
