#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_CHARACTERS_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_CHARACTERS_H_

#include <string>

namespace cupola::model::tokenizer {

// Character classes as the `tokenizers` library has them. Its parts carry
// Unicode tables of different ages, so each function names its own.

// White_Space (unchanged since Unicode 6.3).
bool IsWhitespace(char32_t character);
// \w of Rust's regex crate, Unicode 16: Alphabetic, M, Nd, Pc, Join_Control.
bool IsWord(char32_t character);
// General category N, Unicode 17 (Rust's char::is_numeric).
bool IsNumeric(char32_t character);
// ASCII punctuation, and general category P of Unicode 8 (unicode_categories).
bool IsPunctuation(char32_t character);
// General category M of Unicode 9 (unicode-normalization-alignments).
bool IsCombiningMark(char32_t character);
// Whether Unicode 9 has the character: the normal forms leave others alone.
bool IsInUnicode9(char32_t character);
// The full lower case, without regard to context, of Unicode 17.
void AppendLowercase(char32_t character, std::string* text);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_CHARACTERS_H_
