#include "server/model/tokenizer/byte_level.h"

#include <array>

#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr int kNone = -1;
constexpr int kCharacters = 0x144;  // 256 bytes, 68 of them substituted

constexpr bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
         byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int, kCharacters> byte{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.byte) byte = kNone;
  char32_t next = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = IsPrintable(byte) ? byte : next++;
    alphabet.character[byte] = character;
    alphabet.byte[character] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t ByteCharacter(unsigned char byte) { return kAlphabet.character[byte]; }

std::string ToByteAlphabet(absl::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) {
    AppendCharacter(ByteCharacter(static_cast<unsigned char>(byte)), &text);
  }
  return text;
}

std::optional<std::string> FromByteAlphabet(absl::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t character = NextCharacter(text, &at);
    if (character >= kCharacters || kAlphabet.byte[character] == kNone) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kAlphabet.byte[character]));
  }
  return bytes;
}

}  // namespace cupola::model::tokenizer
