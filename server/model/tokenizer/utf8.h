#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_UTF8_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// Where `bytes` stops being UTF-8 (no overlong forms, no surrogates), or npos.
size_t FindInvalidUtf8(absl::string_view bytes);

// `bytes` with each maximal ill-formed part replaced by U+FFFD, as section 3.9
// of the Unicode standard recommends (and Rust's from_utf8_lossy does).
std::string ToUtf8Lossy(absl::string_view bytes);

// The character at `*position`, which moves behind it. `text` is valid UTF-8
// and `*position` is the start of a character in it.
inline char32_t NextCharacter(absl::string_view text, size_t* position) {
  const auto* at =
      reinterpret_cast<const unsigned char*>(text.data()) + *position;
  if (at[0] < 0x80) {
    *position += 1;
    return at[0];
  }
  if (at[0] < 0xE0) {
    *position += 2;
    return (at[0] & 0x1Fu) << 6 | (at[1] & 0x3Fu);
  }
  if (at[0] < 0xF0) {
    *position += 3;
    return (at[0] & 0x0Fu) << 12 | (at[1] & 0x3Fu) << 6 | (at[2] & 0x3Fu);
  }
  *position += 4;
  return (at[0] & 0x07u) << 18 | (at[1] & 0x3Fu) << 12 | (at[2] & 0x3Fu) << 6 |
         (at[3] & 0x3Fu);
}

// The bytes that the character with this first byte takes.
inline size_t CharacterLength(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

// Where the character that ends at `end` starts.
inline size_t CharacterStart(absl::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

void AppendCharacter(char32_t character, std::string* text);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_UTF8_H_
