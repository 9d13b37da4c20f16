#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_PROPERTIES_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_PROPERTIES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

// Oniguruma's named sets of characters, as what stands between [ and ] in a
// PCRE2 pattern.

// \s. White_Space, written out: PCRE2's own \s differs by version.
absl::string_view SpaceItems();
// \w, which has a few more characters outside of brackets than inside.
std::string WordItems(bool in_brackets);
// \p{name}: general categories by their short and long names, some scripts, and
// Space, Word and Digit. INVALID_ARGUMENT: another name.
absl::StatusOr<std::string> PropertyItems(absl::string_view name);

// INVALID_ARGUMENT with the message that all readers of regexes use.
absl::Status BadRegex(absl::string_view what);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_ONIG_PROPERTIES_H_
