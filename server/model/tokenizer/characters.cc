#include "server/model/tokenizer/characters.h"

#include <unicode/uchar.h>

#include "server/model/tokenizer/stand_ins.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

bool InRange(char32_t character, char32_t first, char32_t last) {
  return first <= character && character <= last;
}

// Assigned in Unicode `major`.0 or before.
bool IsInUnicode(char32_t character, int major) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(character), age);
  return age[0] != 0 && (age[0] < major || (age[0] == major && age[1] == 0));
}

uint32_t CategoryMask(char32_t character) {
  return U_GET_GC_MASK(static_cast<UChar32>(character));
}

}  // namespace

bool IsWhitespace(char32_t character) {
  if (character < 0x80) {
    return character == ' ' || InRange(character, 0x09, 0x0D);
  }
  return character == 0x85 || character == 0xA0 || character == 0x1680 ||
         InRange(character, 0x2000, 0x200A) || character == 0x2028 ||
         character == 0x2029 || character == 0x202F || character == 0x205F ||
         character == 0x3000;
}

bool IsWord(char32_t character) {
  if (character < 0x80) {
    return InRange(character | 0x20, 'a', 'z') ||
           InRange(character, '0', '9') || character == '_';
  }
  if (InRange(character, 0x200C, 0x200D)) return true;
  const char32_t known = StandIn(character);
  constexpr uint32_t kWord = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return (CategoryMask(known) & kWord) != 0 ||
         u_isUAlphabetic(static_cast<UChar32>(known));
}

bool IsNumeric(char32_t character) {
  if (character < 0x80) return InRange(character, '0', '9');
  // Two ranges that Unicode 17 added.
  if (InRange(character, 0x11DE0, 0x11DE9)) return true;
  if (InRange(character, 0x16FF4, 0x16FF6)) return true;
  return (CategoryMask(StandIn(character)) & U_GC_N_MASK) != 0;
}

bool IsPunctuation(char32_t character) {
  if (character < 0x80) {
    return InRange(character, '!', '/') || InRange(character, ':', '@') ||
           InRange(character, '[', '`') || InRange(character, '{', '~');
  }
  // Punctuation in Unicode 8, reclassified since.
  if (character == 0x166D || character == 0x111C9) return true;
  return (CategoryMask(character) & U_GC_P_MASK) != 0 &&
         IsInUnicode(character, 8);
}

bool IsCombiningMark(char32_t character) {
  // Marks in Unicode 9 that are letters now, and a mark that was punctuation.
  if (InRange(character, 0x1CF2, 0x1CF3)) return true;
  if (character == 0x111C9) return false;
  return (CategoryMask(character) & U_GC_M_MASK) != 0 &&
         IsInUnicode9(character);
}

bool IsInUnicode9(char32_t character) { return IsInUnicode(character, 9); }

void AppendLowercase(char32_t character, std::string* text) {
  struct Pair {
    char32_t first;
    char32_t last;
    char32_t lower;
  };
  // Capitals that Unicode 16 and 17 added or paired.
  static constexpr Pair kNew[] = {
      {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},
      {0xA7CC, 0xA7CC, 0xA7CD},    {0xA7CE, 0xA7CE, 0xA7CF},
      {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},
      {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x19B},
      {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB},
  };
  if (character == 0x130) {  // The only one that becomes two characters.
    text->append("i\xCC\x87");
    return;
  }
  if (character >= kNew[0].first) {
    for (const Pair& pair : kNew) {
      if (InRange(character, pair.first, pair.last)) {
        AppendCharacter(pair.lower + (character - pair.first), text);
        return;
      }
    }
  }
  AppendCharacter(u_tolower(static_cast<UChar32>(character)), text);
}

}  // namespace cupola::model::tokenizer
