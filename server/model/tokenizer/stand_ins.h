#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_STAND_INS_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_STAND_INS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

// The regexes of tokenizer files are written for Oniguruma 6.9.10, which knows
// Unicode 16. Debian 12's PCRE2 10.42 and ICU 72 know Unicode 14 and 15. A
// character that they would put into another class has a stand-in here: one
// that every version since 14 puts where Oniguruma puts the character, with as
// many bytes in UTF-8. The character itself where it needs none.
char32_t StandIn(char32_t character);

// `text` with its stand-ins, byte for byte aligned with it: `text` itself where
// nothing needs one (nearly always), else a view of `*buffer`. Valid UTF-8.
absl::string_view WithStandIns(absl::string_view text, std::string* buffer);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_STAND_INS_H_
