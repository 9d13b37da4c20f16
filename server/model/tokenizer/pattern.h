#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_PATTERN_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_PATTERN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/json.h"
#include "server/model/tokenizer/regex.h"

namespace cupola::model::tokenizer {

// What a Split or a Replace looks for: {"String": "..."} or {"Regex": "..."}.
// Immutable; any thread may call.
class Pattern {
 public:
  // INVALID_ARGUMENT: neither of the two, an empty string, or a regex that does
  // not compile.
  static absl::StatusOr<Pattern> FromJson(const Json& json);

  // Appends the matches in `text`, left to right; an empty text has none, not
  // even an empty one. Errors as Regex::FindAll.
  absl::Status FindAll(absl::string_view text,
                       std::vector<Match>* matches) const;

 private:
  Pattern() = default;

  std::string literal_;                 // where there is no regex
  std::shared_ptr<const Regex> regex_;  // shared: patterns are copyable
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_PATTERN_H_
