#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_ADDED_TOKENS_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/json.h"
#include "server/model/tokenizer/bpe.h"
#include "server/model/tokenizer/literal_matcher.h"
#include "server/model/tokenizer/normalizer.h"

namespace cupola::model::tokenizer {

// A token that is found in the text itself, before any word is formed: special
// tokens (<|endoftext|>) and whatever else a file adds to its vocabulary.
struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no \w stands next to it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and that behind it
  bool normalized = true;    // looked for in the normalized text
};

// "added_tokens" of tokenizer.json. Immutable once made; any thread may call.
class AddedTokens {
 public:
  // A piece of a text: one added token, or text without any.
  struct Piece {
    size_t begin;
    size_t end;
    std::optional<int32_t> id;
  };

  // Ids are those `tokenizers` gives, whatever the list says: the model's, or
  // else the next ones behind the model's. `normalizer` may be null.
  // INVALID_ARGUMENT: malformed, too long, or the next id belongs to another
  // token.
  static absl::StatusOr<AddedTokens> FromJson(const Json& list, const Bpe& bpe,
                                              const Normalizer* normalizer);

  // Cuts a text at the tokens that are looked for before normalization, and
  // `normalized` at those that are looked for behind it. Where a token strips
  // white space that a later one starts with, pieces overlap, as they do in
  // `tokenizers`.
  std::vector<Piece> CutRaw(absl::string_view text) const {
    return Cut(text, raw_);
  }
  std::vector<Piece> CutNormalized(absl::string_view normalized) const {
    return Cut(normalized, normalized_);
  }

  std::optional<int32_t> Find(absl::string_view content) const;
  const absl::btree_map<int32_t, AddedToken>& tokens() const { return tokens_; }
  // What the decoder is given for an id: the token's normalized form.
  // REQUIRES: tokens() has the id.
  const std::string& DecodedForm(int32_t id) const;

 private:
  AddedTokens() = default;
  std::vector<Piece> Cut(absl::string_view text,
                         const LiteralMatcher& matcher) const;
  void FillMatchers();

  absl::btree_map<int32_t, AddedToken> tokens_;
  absl::flat_hash_map<std::string, int32_t> ids_;
  absl::flat_hash_map<int32_t, std::string> normal_forms_;  // where different
  LiteralMatcher raw_;
  LiteralMatcher normalized_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_ADDED_TOKENS_H_
