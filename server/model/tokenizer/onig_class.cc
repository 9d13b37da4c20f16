#include "server/model/tokenizer/onig_class.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/onig_properties.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

// [items] or [^items]; a set of nothing needs other words.
std::string Bracket(absl::string_view items, bool negated) {
  if (items.empty()) return negated ? "(?s:.)" : "(?!)";
  return absl::StrCat(negated ? "[^" : "[", items, "]");
}

std::string Intersect(absl::string_view a, absl::string_view b) {
  return absl::StrCat("(?:(?=", a, ")", b, ")");
}

bool StartsAt(absl::string_view pattern, size_t at, absl::string_view what) {
  return pattern.substr(std::min(at, pattern.size()), what.size()) == what;
}

constexpr int kMaxNesting = 32;

absl::StatusOr<CharacterSet> ReadSet(absl::string_view pattern, size_t* at,
                                     int nesting, bool* negated);

// Adds what stands at `*at` to `set`: an escape, a nested set, a character or a
// range of them.
absl::Status ReadMember(absl::string_view pattern, size_t* at, int nesting,
                        CharacterSet* set) {
  if (StartsAt(pattern, *at, "[:")) return BadRegex("[:...:] is not supported");
  if (pattern[*at] == '[') {
    ++*at;
    bool negated = false;
    ASSIGN_OR_RETURN(CharacterSet inner,
                     ReadSet(pattern, at, nesting + 1, &negated));
    if (negated) {
      set->others.push_back(inner.ToNegatedPattern());
      return absl::OkStatus();
    }
    set->items += inner.items;
    for (std::string& other : inner.others) {
      set->others.push_back(std::move(other));
    }
    return absl::OkStatus();
  }
  if (pattern[*at] == '\\') {
    size_t behind = *at + 1;
    ASSIGN_OR_RETURN(const bool is_set,
                     ReadSetEscape(pattern, &behind,
                                   /*in_brackets=*/true, set));
    if (is_set) {
      *at = behind;
      return absl::OkStatus();
    }
  }
  ASSIGN_OR_RETURN(const char32_t first, ReadCharacter(pattern, at));
  absl::StrAppend(&set->items, QuoteCharacter(first));
  // A '-' that ends the set stands for itself.
  if (!StartsAt(pattern, *at, "-") || StartsAt(pattern, *at, "-]")) {
    return absl::OkStatus();
  }
  ++*at;
  if (*at >= pattern.size()) return BadRegex("a class is not closed");
  if (pattern[*at] == '[') return BadRegex("a range that ends in a class");
  if (pattern[*at] == '\\') {
    size_t behind = *at + 1;
    CharacterSet unused;
    ASSIGN_OR_RETURN(
        const bool is_set,
        ReadSetEscape(pattern, &behind, /*in_brackets=*/true, &unused));
    if (is_set) return BadRegex("a range that ends in a class");
  }
  ASSIGN_OR_RETURN(const char32_t last, ReadCharacter(pattern, at));
  if (last < first) return BadRegex("a range that runs backwards");
  absl::StrAppend(&set->items, "-", QuoteCharacter(last));
  return absl::OkStatus();
}

absl::StatusOr<CharacterSet> ReadSet(absl::string_view pattern, size_t* at,
                                     int nesting, bool* negated) {
  if (nesting > kMaxNesting) return BadRegex("classes nest too deeply");
  *negated = StartsAt(pattern, *at, "^");
  if (*negated) ++*at;
  CharacterSet set;
  std::string intersected;  // what stood before the last &&
  bool has_intersection = false;
  for (bool first = true;; first = false) {
    if (*at >= pattern.size()) return BadRegex("a class is not closed");
    if (pattern[*at] == ']' && first) {
      // A ']' in the first place stands for itself.
      set.items += QuoteCharacter(']');
      ++*at;
      continue;
    }
    if (pattern[*at] == ']') break;
    if (StartsAt(pattern, *at, "&&")) {
      *at += 2;
      intersected = has_intersection ? Intersect(intersected, set.ToPattern())
                                     : set.ToPattern();
      has_intersection = true;
      set = {};
      continue;
    }
    RETURN_IF_ERROR(ReadMember(pattern, at, nesting, &set));
  }
  ++*at;
  if (has_intersection) {
    CharacterSet both;
    both.others.push_back(Intersect(intersected, set.ToPattern()));
    return both;
  }
  return set;
}

absl::StatusOr<char32_t> ReadHex(absl::string_view digits) {
  uint32_t value = 0;
  if (digits.empty() || digits.size() > 6 ||
      !absl::SimpleHexAtoi(digits, &value) || value > 0x10FFFF ||
      (value >= 0xD800 && value <= 0xDFFF)) {
    return BadRegex(
        absl::StrCat("\"", digits, "\" is not a character's number"));
  }
  return value;
}

}  // namespace

std::string CharacterSet::ToPattern() const {
  if (others.empty()) return Bracket(items, false);
  const std::string rest = absl::StrJoin(others, "|");
  if (items.empty()) return absl::StrCat("(?:", rest, ")");
  return absl::StrCat("(?:", Bracket(items, false), "|", rest, ")");
}

std::string CharacterSet::ToNegatedPattern() const {
  if (others.empty()) return Bracket(items, true);
  return absl::StrCat("(?:(?!", ToPattern(), ")(?s:.))");
}

std::string QuoteCharacter(char32_t character) {
  if (character < 0x80 && absl::ascii_isalnum(character)) {
    return std::string(1, static_cast<char>(character));
  }
  return absl::StrFormat("\\x{%x}", static_cast<uint32_t>(character));
}

absl::StatusOr<bool> ReadSetEscape(absl::string_view pattern, size_t* at,
                                   bool in_brackets, CharacterSet* set) {
  if (*at >= pattern.size()) return BadRegex("ends with a backslash");
  const char letter = pattern[*at];
  std::string items;
  bool negated = absl::ascii_isupper(letter);
  switch (absl::ascii_tolower(letter)) {
    case 's':
      items = std::string(SpaceItems());
      break;
    case 'w':
      items = WordItems(in_brackets);
      break;
    case 'd':
      items = "\\p{Nd}";
      break;
    case 'h':
      items = "0-9A-Fa-f";
      break;
    case 'p': {
      const size_t close = pattern.find('}', *at);
      if (!StartsAt(pattern, *at + 1, "{") ||
          close == absl::string_view::npos) {
        return BadRegex("\\p without {name}");
      }
      absl::string_view name = pattern.substr(*at + 2, close - *at - 2);
      if (StartsAt(name, 0, "^")) {
        negated = !negated;
        name.remove_prefix(1);
      }
      ASSIGN_OR_RETURN(items, PropertyItems(name));
      *at = close;
      break;
    }
    default:
      return false;
  }
  ++*at;
  if (negated) {
    set->others.push_back(Bracket(items, true));
  } else {
    set->items += items;
  }
  return true;
}

absl::StatusOr<char32_t> ReadCharacter(absl::string_view pattern, size_t* at) {
  if (*at >= pattern.size()) return BadRegex("ends too early");
  if (pattern[*at] != '\\') return NextCharacter(pattern, at);
  ++*at;
  if (*at >= pattern.size()) return BadRegex("ends with a backslash");
  const char32_t letter = NextCharacter(pattern, at);
  switch (letter) {
    case 't':
      return '\t';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case 'a':
      return '\a';
    case 'e':
      return 0x1B;
    case 'u': {
      const absl::string_view digits = pattern.substr(*at, 4);
      if (digits.size() != 4) return BadRegex("\\u needs four digits");
      *at += 4;
      return ReadHex(digits);
    }
    case 'x': {
      if (StartsAt(pattern, *at, "{")) {
        const size_t close = pattern.find('}', *at);
        if (close == absl::string_view::npos)
          return BadRegex("\\x{ is not closed");
        const absl::string_view digits =
            pattern.substr(*at + 1, close - *at - 1);
        *at = close + 1;
        return ReadHex(digits);
      }
      const absl::string_view digits = pattern.substr(*at, 2);
      ASSIGN_OR_RETURN(const char32_t value, ReadHex(digits));
      *at += digits.size();
      if (value >= 0x80) return BadRegex("\\x above 7F stands for a bare byte");
      return value;
    }
    default:
      if (letter < 0x80 && absl::ascii_isalnum(letter)) {
        return BadRegex(absl::StrCat("escape \\",
                                     std::string(1, static_cast<char>(letter)),
                                     " is not supported"));
      }
      return letter;
  }
}

absl::StatusOr<std::string> TranslateClass(absl::string_view pattern,
                                           size_t* at) {
  bool negated = false;
  ASSIGN_OR_RETURN(const CharacterSet set,
                   ReadSet(pattern, at, /*nesting=*/0, &negated));
  return negated ? set.ToNegatedPattern() : set.ToPattern();
}

}  // namespace cupola::model::tokenizer
