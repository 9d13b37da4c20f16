#include "server/model/tokenizer/normal_form.h"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <vector>

#include "server/model/tokenizer/characters.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

struct Symbol {
  char32_t character;
  uint8_t combining_class;
};

bool Composes(NormalForm form) {
  return form == NormalForm::kNfc || form == NormalForm::kNfkc;
}

bool IsCompatibility(NormalForm form) {
  return form == NormalForm::kNfkc || form == NormalForm::kNfkd;
}

// ICU's data is built in: these cannot fail.
const UNormalizer2* Data(bool compatibility) {
  UErrorCode error = U_ZERO_ERROR;
  return compatibility ? unorm2_getNFKCInstance(&error)
                       : unorm2_getNFCInstance(&error);
}

// True where every character is below the first one that `form` can change.
bool IsPlain(NormalForm form, absl::string_view text) {
  // 0xCC starts U+0300: composed Latin-1 and Latin Extended are already NFC.
  const unsigned char limit = form == NormalForm::kNfc ? 0xCC : 0x80;
  return std::all_of(text.begin(), text.end(), [limit](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < limit;
  });
}

std::vector<Symbol> Decompose(NormalForm form, absl::string_view text) {
  const UNormalizer2* const data = Data(IsCompatibility(form));
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t character = NextCharacter(text, &at);
    if (character < 0x80 || !IsInUnicode9(character)) {
      symbols.push_back({character, 0});
      continue;
    }
    // The longest decomposition, of U+FDFA, has 18 UTF-16 units.
    UChar units[32];
    UErrorCode error = U_ZERO_ERROR;
    const int32_t count = unorm2_getDecomposition(
        data, static_cast<UChar32>(character), units, std::size(units), &error);
    if (count < 0) {
      symbols.push_back({character, u_getCombiningClass(character)});
      continue;
    }
    for (int32_t i = 0; i < count;) {
      UChar32 part;
      U16_NEXT(units, i, count, part);
      symbols.push_back(
          {static_cast<char32_t>(part), u_getCombiningClass(part)});
    }
  }
  return symbols;
}

// The canonical ordering algorithm: every run of marks by combining class.
void Order(std::vector<Symbol>* symbols) {
  const auto is_starter = [](const Symbol& s) {
    return s.combining_class == 0;
  };
  for (auto at = symbols->begin(); at != symbols->end();) {
    const auto run = std::find_if_not(at, symbols->end(), is_starter);
    at = std::find_if(run, symbols->end(), is_starter);
    if (at - run > 1) {
      std::stable_sort(run, at, [](const Symbol& a, const Symbol& b) {
        return a.combining_class < b.combining_class;
      });
    }
  }
}

// The canonical composition algorithm, in place.
void Compose(std::vector<Symbol>* symbols) {
  const UNormalizer2* const data = Data(/*compatibility=*/false);
  std::vector<Symbol>& s = *symbols;
  constexpr size_t kNone = -1;
  size_t starter = kNone;  // where the last starter stands in the output
  int last_class = -1;     // of what stands behind it; -1: nothing
  size_t size = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    const Symbol symbol = s[i];
    const bool reachable =
        starter != kNone &&
        (last_class == -1 || last_class < symbol.combining_class);
    if (reachable && IsInUnicode9(symbol.character)) {
      const UChar32 composed =
          unorm2_composePair(data, static_cast<UChar32>(s[starter].character),
                             static_cast<UChar32>(symbol.character));
      if (composed >= 0 && IsInUnicode9(composed)) {
        s[starter].character = composed;
        continue;
      }
    }
    if (symbol.combining_class == 0) {
      starter = size;
      last_class = -1;
    } else {
      last_class = symbol.combining_class;
    }
    s[size++] = symbol;
  }
  s.resize(size);
}

}  // namespace

std::string ToNormalForm(NormalForm form, absl::string_view text) {
  if (IsPlain(form, text)) return std::string(text);
  std::vector<Symbol> symbols = Decompose(form, text);
  Order(&symbols);
  if (Composes(form)) Compose(&symbols);
  std::string result;
  result.reserve(text.size());
  for (const Symbol& symbol : symbols) {
    AppendCharacter(symbol.character, &result);
  }
  return result;
}

}  // namespace cupola::model::tokenizer
