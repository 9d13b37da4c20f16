#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_BPE_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/json.h"
#include "server/model/tokenizer/merges.h"

namespace cupola::model::tokenizer {

// Byte pair encoding: "model" in tokenizer.json. Immutable once made; any
// thread may call.
class Bpe {
 public:
  // Ids are below this: several times what any published vocabulary has.
  static constexpr int64_t kMaxIds = int64_t{1} << 21;

  // `byte_level`: words come as bytes, and the vocabulary is in GPT-2's byte
  // alphabet. INVALID_ARGUMENT: not BPE, malformed, an id out of range or given
  // twice, a merge of unknown tokens, or an option that is not supported.
  static absl::StatusOr<Bpe> FromJson(const Json& model, bool byte_level);

  // Appends the ids of one word. INVALID_ARGUMENT: the word needs the unknown
  // token, which is not in the vocabulary.
  absl::Status Encode(absl::string_view word, std::vector<int32_t>* ids) const;

  // The id of a token as the file writes it.
  std::optional<int32_t> Find(absl::string_view token) const;
  // The tokens by id, as the file writes them; an id that none has is empty.
  const std::vector<std::optional<std::string>>& tokens() const {
    return tokens_;
  }
  // How many tokens there are: tokens().size() without the holes.
  int32_t size() const { return size_; }

 private:
  struct Entry {
    int32_t id;
    bool whole;  // encoding this very word gives just this id
  };
  using Vocabulary = absl::flat_hash_map<absl::string_view, int32_t>;

  Bpe() = default;
  absl::Status ReadOptions(const Json& model);
  // The views in the result are of `model`.
  absl::StatusOr<Vocabulary> ReadVocabulary(const Json& model);
  void IndexVocabulary(const Vocabulary& vocabulary);
  absl::Status ReadMerges(const Json& model, const Vocabulary& vocabulary);
  // Tells merges_ where the rule that joins `left` and `right` can apply.
  void AddJoints(absl::string_view left, absl::string_view right,
                 const Vocabulary& vocabulary);
  void MarkWholeWords();

  // Appends the ids of `word` by the merge rules alone.
  absl::Status Merge(absl::string_view word, std::vector<int32_t>* ids) const;
  // Appends the symbols that `word` starts as.
  absl::Status Start(absl::string_view word, std::vector<int32_t>* ids) const;
  // False and nothing appended where a byte of `character` has no token.
  bool AddByteFallback(absl::string_view character,
                       std::vector<int32_t>* ids) const;

  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  std::optional<std::string> unknown_token_;
  std::optional<int32_t> unknown_id_;
  int32_t size_ = 0;
  std::vector<std::optional<std::string>> tokens_;
  // Tokens as words come: as bytes where byte_level_; and those that then no
  // word can be, as the file writes them.
  absl::flat_hash_map<std::string, Entry> words_;
  absl::flat_hash_map<std::string, int32_t> unreachable_;
  size_t longest_word_ = 0;  // of words_, in bytes
  // Of a word's byte; without byte_level_ only where the byte is a character.
  std::array<std::optional<int32_t>, 256> byte_ids_;
  std::array<std::optional<int32_t>, 256> fallback_ids_;  // <0x00> ... <0xFF>
  Merges merges_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_BPE_H_
