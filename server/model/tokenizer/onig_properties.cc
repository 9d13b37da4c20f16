#include "server/model/tokenizer/onig_properties.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace cupola::model::tokenizer {
namespace {

// White_Space, written out: PCRE2's own \s differs from version to version.
constexpr absl::string_view kSpaces =
    "\\x{9}-\\x{d} \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"
    "\\x{202f}\\x{205f}\\x{3000}";

// Oniguruma's \w: Alphabetic, M, Nd and Pc. The ASCII part stands first and
// apart because PCRE2 keeps it in a bitmap.
constexpr absl::string_view kWord =
    "A-Za-z0-9_\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"
    "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";
// Outside of brackets it looks single bytes up in a table for Latin-1, where
// the superscripts and fractions are word characters too.
constexpr absl::string_view kLatin1Word =
    "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

// General categories by their long names, as Oniguruma normalizes them.
constexpr std::pair<absl::string_view, absl::string_view> kLongNames[] = {
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"unassigned", "Cn"},
    {"privateuse", "Co"},
};

constexpr absl::string_view kCategories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
    "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
    "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cn", "Co",
};

// Scripts that tokenizer files name; PCRE2 wants them capitalized. These keep
// their characters under StandIn.
constexpr absl::string_view kScripts[] = {
    "Greek", "Han", "Hangul", "Hebrew", "Hiragana", "Katakana", "Latin", "Thai",
};

}  // namespace

absl::Status BadRegex(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("regex: ", what));
}

absl::string_view SpaceItems() { return kSpaces; }

std::string WordItems(bool in_brackets) {
  return absl::StrCat(kWord, in_brackets ? "" : kLatin1Word);
}

absl::StatusOr<std::string> PropertyItems(absl::string_view name) {
  std::string plain;  // Oniguruma ignores case, spaces, '-' and '_'.
  for (const char c : name) {
    if (c != ' ' && c != '-' && c != '_') plain += absl::ascii_tolower(c);
  }
  for (const absl::string_view category : kCategories) {
    if (absl::AsciiStrToLower(category) != plain) continue;
    // ASCII letters again, for PCRE2's bitmap.
    if (category == "L") return std::string("A-Za-z\\p{L}");
    return absl::StrCat("\\p{", category, "}");
  }
  for (const auto& [long_name, category] : kLongNames) {
    if (long_name == plain) return PropertyItems(category);
  }
  for (const absl::string_view script : kScripts) {
    if (absl::AsciiStrToLower(script) == plain) {
      return absl::StrCat("\\p{sc:", script, "}");
    }
  }
  if (plain == "space" || plain == "whitespace") return std::string(kSpaces);
  if (plain == "word") return std::string(kWord);
  if (plain == "digit") return std::string("\\p{Nd}");
  return BadRegex(
      absl::StrCat("character property \"", name, "\" is not supported"));
}

}  // namespace cupola::model::tokenizer
