#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_NORMAL_FORM_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_NORMAL_FORM_H_

#include <string>

#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// The Unicode normal form (UAX #15) of valid UTF-8 as Unicode 9 defines it: the
// version `tokenizers` has. Characters that came later stay as they are. Takes
// O(n log n) steps even where the whole text is one run of combining marks.
std::string ToNormalForm(NormalForm form, absl::string_view text);

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_NORMAL_FORM_H_
