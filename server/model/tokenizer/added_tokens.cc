#include "server/model/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/characters.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

constexpr size_t kMaxContentBytes = 1024;

absl::StatusOr<AddedToken> ReadToken(const Json& json) {
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, RequiredString(json, "content"));
  if (token.content.size() > kMaxContentBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"content\" of ", token.content.size(),
                     " bytes, at most ", kMaxContentBytes, " are accepted"));
  }
  ASSIGN_OR_RETURN(token.single_word, BoolOr(json, "single_word", false));
  ASSIGN_OR_RETURN(token.lstrip, BoolOr(json, "lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, BoolOr(json, "rstrip", false));
  ASSIGN_OR_RETURN(const bool special, BoolOr(json, "special", false));
  ASSIGN_OR_RETURN(token.normalized, BoolOr(json, "normalized", !special));
  return token;
}

bool EndsInWord(absl::string_view text, size_t end) {
  if (end == 0) return false;
  size_t at = CharacterStart(text, end);
  return IsWord(NextCharacter(text, &at));
}

bool StartsWithWord(absl::string_view text, size_t begin) {
  return begin < text.size() && IsWord(NextCharacter(text, &begin));
}

// Where the white space that ends at `end` begins, and the other way round.
size_t SpaceBefore(absl::string_view text, size_t end) {
  while (end > 0) {
    const size_t start = CharacterStart(text, end);
    size_t at = start;
    if (!IsWhitespace(NextCharacter(text, &at))) break;
    end = start;
  }
  return end;
}

size_t SpaceBehind(absl::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t at = begin;
    if (!IsWhitespace(NextCharacter(text, &at))) break;
    begin = at;
  }
  return begin;
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::FromJson(
    const Json& list, const Bpe& bpe, const Normalizer* normalizer) {
  AddedTokens added;
  if (list.is_null()) return added;
  if (!list.is_array()) {
    return absl::InvalidArgumentError("\"added_tokens\" must be a list");
  }
  // `tokenizers` counts the model's tokens, holes or not.
  int32_t next_id = bpe.size();
  for (size_t i = 0; i < list.size(); ++i) {
    absl::StatusOr<AddedToken> token = ReadToken(list[i]);
    if (!token.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"added_tokens\"[", i, "]: ", token.status().message()));
    }
    if (token->content.empty()) continue;
    std::optional<int32_t> id = added.Find(token->content);
    if (!id.has_value()) id = bpe.Find(token->content);
    if (!id.has_value()) {
      id = next_id++;
      if (*id >= Bpe::kMaxIds ||
          (static_cast<size_t>(*id) < bpe.tokens().size() &&
           bpe.tokens()[*id].has_value())) {
        return absl::InvalidArgumentError(absl::StrCat(
            "\"added_tokens\"[", i, "] \"", token->content,
            "\" would get the id ", *id, ", which is taken or too large"));
      }
    }
    if (token->normalized && normalizer != nullptr) {
      NormalizedText normal = {token->content, 0};
      RETURN_IF_ERROR(normalizer->Apply(&normal));
      if (normal.text != token->content) {
        added.normal_forms_[*id] = std::move(normal.text);
      }
    }
    added.ids_[token->content] = *id;
    added.tokens_[*id] = *std::move(token);
  }
  added.FillMatchers();
  return added;
}

void AddedTokens::FillMatchers() {
  // Of tokens that are the same once normalized the lowest id wins
  // (`tokenizers` takes any of them); a token that becomes empty is never seen.
  for (const auto& [id, token] : tokens_) {
    if (token.normalized) {
      normalized_.Add(DecodedForm(id), id);
    } else {
      raw_.Add(token.content, id);
    }
  }
}

std::vector<AddedTokens::Piece> AddedTokens::Cut(
    absl::string_view text, const LiteralMatcher& matcher) const {
  std::vector<Piece> pieces;
  size_t done = 0;
  size_t from = 0;
  if (!matcher.empty()) {
    while (const auto found = matcher.Find(text, from)) {
      from = found->end;
      size_t begin = found->begin;
      size_t end = found->end;
      const AddedToken& token = tokens_.at(found->value);
      if (token.single_word &&
          (EndsInWord(text, begin) || StartsWithWord(text, end))) {
        continue;
      }
      // The token before may have taken this white space already.
      if (token.lstrip) begin = std::max(SpaceBefore(text, begin), done);
      if (token.rstrip) end = SpaceBehind(text, end);
      if (done < begin) pieces.push_back({done, begin, std::nullopt});
      if (begin < end) pieces.push_back({begin, end, found->value});
      done = end;
    }
  }
  if (done != text.size()) pieces.push_back({done, text.size(), std::nullopt});
  return pieces;
}

std::optional<int32_t> AddedTokens::Find(absl::string_view content) const {
  const auto it = ids_.find(content);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

const std::string& AddedTokens::DecodedForm(int32_t id) const {
  const auto it = normal_forms_.find(id);
  return it == normal_forms_.end() ? tokens_.at(id).content : it->second;
}

}  // namespace cupola::model::tokenizer
