#include "server/model/tokenizer/bpe.h"

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/byte_level.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {

absl::Status Bpe::Encode(absl::string_view word,
                         std::vector<int32_t>* ids) const {
  if (word.size() <= longest_word_) {
    const auto it = words_.find(word);
    if (it != words_.end() && (it->second.whole || ignore_merges_)) {
      ids->push_back(it->second.id);
      return absl::OkStatus();
    }
  }
  return Merge(word, ids);
}

absl::Status Bpe::Merge(absl::string_view word,
                        std::vector<int32_t>* ids) const {
  const size_t first = ids->size();
  RETURN_IF_ERROR(Start(word, ids));
  ids->resize(first + merges_.Apply(ids->data() + first, ids->size() - first));
  return absl::OkStatus();
}

absl::Status Bpe::Start(absl::string_view word,
                        std::vector<int32_t>* ids) const {
  bool unknown_pending = false;
  const auto flush_unknown = [&] {
    if (unknown_pending) ids->push_back(*unknown_id_);
    unknown_pending = false;
  };
  for (size_t at = 0; at < word.size();) {
    const auto byte = static_cast<unsigned char>(word[at]);
    const size_t length = byte_level_ ? 1 : CharacterLength(byte);
    const absl::string_view character = word.substr(at, length);
    at += length;
    std::optional<int32_t> symbol;
    if (length == 1) {
      symbol = byte_ids_[byte];
    } else if (const auto it = words_.find(character); it != words_.end()) {
      symbol = it->second.id;
    }
    if (symbol.has_value()) {
      flush_unknown();
      ids->push_back(*symbol);
      continue;
    }
    // An unknown token that is pending stays so, behind the bytes: that is what
    // `tokenizers` does.
    if (byte_fallback_ &&
        AddByteFallback(byte_level_
                            ? absl::string_view(ToByteAlphabet(character))
                            : character,
                        ids)) {
      continue;
    }
    if (!unknown_token_.has_value()) continue;  // The character is lost.
    if (!unknown_id_.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text has a character outside the vocabulary, and "
                       "so is the unk_token \"",
                       *unknown_token_, "\""));
    }
    if (!fuse_unknown_) flush_unknown();
    unknown_pending = true;
  }
  flush_unknown();
  return absl::OkStatus();
}

bool Bpe::AddByteFallback(absl::string_view character,
                          std::vector<int32_t>* ids) const {
  for (const char byte : character) {
    if (!fallback_ids_[static_cast<unsigned char>(byte)].has_value()) {
      return false;
    }
  }
  for (const char byte : character) {
    ids->push_back(*fallback_ids_[static_cast<unsigned char>(byte)]);
  }
  return true;
}

std::optional<int32_t> Bpe::Find(absl::string_view token) const {
  if (const auto it = unreachable_.find(token); it != unreachable_.end()) {
    return it->second;
  }
  const std::optional<std::string> word =
      byte_level_ ? FromByteAlphabet(token) : std::string(token);
  if (!word.has_value()) return std::nullopt;
  const auto it = words_.find(*word);
  if (it == words_.end()) return std::nullopt;
  return it->second.id;
}

}  // namespace cupola::model::tokenizer
