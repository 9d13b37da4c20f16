#include "server/model/tokenizer/bpe_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {

BpeTokenizer::BpeTokenizer(Parts parts) : parts_(std::move(parts)) {
  vocabulary_size_ = static_cast<int32_t>(parts_.bpe.tokens().size());
  if (!parts_.added.tokens().empty()) {
    vocabulary_size_ =
        std::max(vocabulary_size_, parts_.added.tokens().rbegin()->first + 1);
  }
}

absl::StatusOr<std::vector<int32_t>> BpeTokenizer::Encode(
    absl::string_view text) const {
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text is not valid UTF-8 at byte ", invalid));
  }
  std::vector<int32_t> ids;
  for (const AddedTokens::Piece& piece : parts_.added.CutRaw(text)) {
    if (piece.id.has_value()) {
      ids.push_back(*piece.id);
      continue;
    }
    RETURN_IF_ERROR(
        EncodeText(text.substr(piece.begin, piece.end - piece.begin),
                   /*first=*/piece.begin == 0, &ids));
  }
  return ids;
}

absl::Status BpeTokenizer::EncodeText(absl::string_view text, bool first,
                                      std::vector<int32_t>* ids) const {
  NormalizedText normalized = {std::string(text), 0};
  if (first && !text.empty()) {
    normalized.head = CharacterLength(static_cast<unsigned char>(text[0]));
  }
  if (parts_.normalizer != nullptr) {
    RETURN_IF_ERROR(parts_.normalizer->Apply(&normalized));
  }
  const auto pieces = parts_.added.CutNormalized(normalized.text);
  if (pieces.size() == 1 && !pieces[0].id.has_value()) {
    return EncodeWords(std::move(normalized), ids);
  }
  for (const AddedTokens::Piece& piece : pieces) {
    if (piece.id.has_value()) {
      ids->push_back(*piece.id);
      continue;
    }
    const size_t size = piece.end - piece.begin;
    const size_t head =
        normalized.head - std::min(normalized.head, piece.begin);
    RETURN_IF_ERROR(EncodeWords(
        {normalized.text.substr(piece.begin, size), std::min(head, size)},
        ids));
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodeWords(NormalizedText text,
                                       std::vector<int32_t>* ids) const {
  Words words(std::move(text));
  for (const auto& step : parts_.pre_tokenizer.steps) {
    RETURN_IF_ERROR(step->Apply(&words));
  }
  for (const Words::Word& word : words.words()) {
    RETURN_IF_ERROR(parts_.bpe.Encode(words.TextOf(word), ids));
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::CheckId(int32_t id) const {
  const auto& tokens = parts_.bpe.tokens();
  if (id >= 0 &&
      (parts_.added.tokens().contains(id) ||
       (static_cast<size_t>(id) < tokens.size() && tokens[id].has_value()))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "no token has the id ", id, "; the vocabulary's ids run from 0 to ",
      vocabulary_size_ - 1));
}

absl::StatusOr<std::string> BpeTokenizer::Decode(
    const std::vector<int32_t>& ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    RETURN_IF_ERROR(CheckId(id));
    tokens.push_back(parts_.added.tokens().contains(id)
                         ? parts_.added.DecodedForm(id)
                         : *parts_.bpe.tokens()[id]);
  }
  return parts_.decoder.Decode(std::move(tokens));
}

absl::StatusOr<std::string> BpeTokenizer::Piece(int32_t id) const {
  RETURN_IF_ERROR(CheckId(id));
  const auto added = parts_.added.tokens().find(id);
  if (added == parts_.added.tokens().end()) {
    return parts_.decoder.Piece(*parts_.bpe.tokens()[id]);
  }
  // An added token stands in a text as it is; none of its characters are bytes.
  return added->second.content;
}

}  // namespace cupola::model::tokenizer
