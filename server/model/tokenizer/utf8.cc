#include "server/model/tokenizer/utf8.h"

#include <cstdint>
#include <cstring>

namespace cupola::model::tokenizer {
namespace {

struct Unit {
  size_t length;  // of the character, or of the maximal ill-formed part
  bool valid;
};

// Table 3-7 of the Unicode standard: which second byte each first one allows.
Unit ReadUnit(absl::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) -> unsigned {
    return at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i])
                                 : 0;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return {1, true};
  if (first < 0xC2 || first > 0xF4) return {1, false};
  if (first < 0xE0) return {continues(1) ? size_t{2} : 1, continues(1)};
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return {1, false};
  if (!continues(2)) return {2, false};
  if (first < 0xF0) return {3, true};
  return {continues(3) ? size_t{4} : 3, continues(3)};
}

}  // namespace

size_t FindInvalidUtf8(absl::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    // Eight ASCII bytes at a time.
    while (at + sizeof(uint64_t) <= bytes.size()) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + at, sizeof(word));
      if ((word & 0x8080808080808080u) != 0) break;
      at += sizeof(word);
    }
    if (at == bytes.size()) break;
    const Unit unit = ReadUnit(bytes, at);
    if (!unit.valid) return at;
    at += unit.length;
  }
  return absl::string_view::npos;
}

std::string ToUtf8Lossy(absl::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const Unit unit = ReadUnit(bytes, at);
    if (unit.valid) {
      text.append(bytes.data() + at, unit.length);
    } else {
      AppendCharacter(kReplacementCharacter, &text);
    }
    at += unit.length;
  }
  return text;
}

void AppendCharacter(char32_t character, std::string* text) {
  const auto push = [text](char32_t byte) {
    text->push_back(static_cast<char>(byte));
  };
  if (character < 0x80) {
    push(character);
  } else if (character < 0x800) {
    push(0xC0 | character >> 6);
    push(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    push(0xE0 | character >> 12);
    push(0x80 | (character >> 6 & 0x3F));
    push(0x80 | (character & 0x3F));
  } else {
    push(0xF0 | character >> 18);
    push(0x80 | (character >> 12 & 0x3F));
    push(0x80 | (character >> 6 & 0x3F));
    push(0x80 | (character & 0x3F));
  }
}

}  // namespace cupola::model::tokenizer
