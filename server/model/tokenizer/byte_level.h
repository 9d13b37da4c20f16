#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_BYTE_LEVEL_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_BYTE_LEVEL_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

// GPT-2's alphabet: each byte has a printable character of its own, so that a
// vocabulary of byte strings can be written as text. Bytes that are printable
// in Latin-1 (without the soft hyphen and the no-break space) stand for
// themselves; the others are U+0100, U+0101, ... in order. " the" is "Ġthe".

// Never fails; any bytes.
std::string ToByteAlphabet(absl::string_view bytes);

// The bytes behind `text` (valid UTF-8); nothing where a character is not in
// the alphabet.
std::optional<std::string> FromByteAlphabet(absl::string_view text);

// The character of one byte.
char32_t ByteCharacter(unsigned char byte);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_BYTE_LEVEL_H_
