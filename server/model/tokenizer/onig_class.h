#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_CLASS_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_CLASS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

// A set of characters on its way from Oniguruma's notation to PCRE2's. PCRE2
// 10.42 has no nested, negated-inside or intersected classes, so a set is the
// inside of one bracket expression and, beside it, atoms that match one
// character each.
struct CharacterSet {
  std::string items;                // what stands between [ and ]
  std::vector<std::string> others;  // each matches exactly one character
  // One atom that matches exactly one character of the set, or of its
  // complement.
  std::string ToPattern() const;
  std::string ToNegatedPattern() const;
};

// Reads the bracket expression at `*at`, which stands behind its '[' and moves
// behind its ']'; gives one PCRE2 atom. INVALID_ARGUMENT: malformed, or uses a
// construct that is not supported.
absl::StatusOr<std::string> TranslateClass(absl::string_view pattern,
                                           size_t* at);

// Reads the escape at `*at`, which stands behind its backslash, if it stands
// for a set of characters (\s, \W, \p{L}, ...); false and nothing read if not.
absl::StatusOr<bool> ReadSetEscape(absl::string_view pattern, size_t* at,
                                   bool in_brackets, CharacterSet* set);

// Reads one character, escaped or not, and gives its code point. The escapes
// are those that mean the same inside and outside of brackets.
absl::StatusOr<char32_t> ReadCharacter(absl::string_view pattern, size_t* at);

// The character as PCRE2 takes it anywhere: itself, or \x{...}.
std::string QuoteCharacter(char32_t character);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_CLASS_H_
