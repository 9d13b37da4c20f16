#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_SYNTAX_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_SYNTAX_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

// Tokenizer files write their regexes for Oniguruma in its own syntax. This
// gives the PCRE2 pattern (for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE) that
// matches the same texts in the same way. What differs between the two and is
// rewritten: sets and nested classes, \w \s \h \v \b \u, the reach of (?i),
// (?m), {,n}, and what a '+' or '?' means behind {n,m}.
// INVALID_ARGUMENT: malformed or not supported, with the construct's name.
absl::StatusOr<std::string> TranslateOnigPattern(absl::string_view pattern);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_SYNTAX_H_
