#include "server/model/tokenizer/pattern.h"

#include <utility>

#include "server/model/status_macros.h"

namespace cupola::model::tokenizer {

absl::StatusOr<Pattern> Pattern::FromJson(const Json& json) {
  Pattern pattern;
  if (json.is_object() && json.contains("Regex")) {
    ASSIGN_OR_RETURN(const std::string regex, RequiredString(json, "Regex"));
    ASSIGN_OR_RETURN(pattern.regex_, Regex::Compile(regex));
    return pattern;
  }
  if (json.is_object() && json.contains("String")) {
    ASSIGN_OR_RETURN(pattern.literal_, RequiredString(json, "String"));
    if (!pattern.literal_.empty()) return pattern;
  }
  return absl::InvalidArgumentError(
      "a \"pattern\" must be {\"String\": ...}, not empty, or "
      "{\"Regex\": ...}");
}

absl::Status Pattern::FindAll(absl::string_view text,
                              std::vector<Match>* matches) const {
  if (text.empty()) return absl::OkStatus();
  if (regex_ != nullptr) return regex_->FindAll(text, matches);
  for (size_t at = text.find(literal_); at != absl::string_view::npos;
       at = text.find(literal_, at + literal_.size())) {
    matches->push_back({at, at + literal_.size()});
  }
  return absl::OkStatus();
}

}  // namespace cupola::model::tokenizer
