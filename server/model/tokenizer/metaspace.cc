#include "server/model/tokenizer/metaspace.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/split.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {

absl::StatusOr<Metaspace> Metaspace::FromJson(const Json& json) {
  ASSIGN_OR_RETURN(std::string replacement,
                   RequiredString(json, "replacement"));
  if (replacement.empty() || CharacterLength(static_cast<unsigned char>(
                                 replacement[0])) != replacement.size()) {
    return absl::InvalidArgumentError(
        "Metaspace's \"replacement\" must be one character");
  }
  ASSIGN_OR_RETURN(const std::string scheme,
                   StringOr(json, "prepend_scheme", "always"));
  ASSIGN_OR_RETURN(const bool split, BoolOr(json, "split", true));
  // Files from before prepend_scheme say it with this one.
  ASSIGN_OR_RETURN(const bool prefix, BoolOr(json, "add_prefix_space", true));
  Prepend prepend;
  if (scheme == "never") {
    prepend = Prepend::kNever;
  } else if (scheme == "always") {
    prepend = Prepend::kAlways;
  } else if (scheme == "first") {
    prepend = Prepend::kFirst;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("Metaspace's \"prepend_scheme\" is \"", scheme,
                     "\", expected always, first or never"));
  }
  if (!prefix && prepend != Prepend::kNever &&
      json.contains("prepend_scheme")) {
    return absl::InvalidArgumentError(
        "Metaspace's \"add_prefix_space\" and \"prepend_scheme\" contradict "
        "each other");
  }
  if (!prefix) prepend = Prepend::kNever;
  return Metaspace(std::move(replacement), prepend, split);
}

absl::Status Metaspace::Apply(Words* words) const {
  words->RewriteEach([this](const Words::Word& word, absl::string_view old,
                            std::string* text) {
    const bool wanted = prepend_ == Prepend::kAlways ||
                        (prepend_ == Prepend::kFirst && word.head > 0);
    const bool present =
        absl::StartsWith(old, " ") || absl::StartsWith(old, replacement_);
    const size_t begin = text->size();
    if (wanted && !present) *text += replacement_;
    size_t head = 0;
    for (size_t at = 0; at < old.size(); ++at) {
      if (old[at] == ' ') {
        *text += replacement_;
      } else {
        text->push_back(old[at]);
      }
      if (at < word.head) head = text->size() - begin;
    }
    return head;
  });
  if (!split_) return absl::OkStatus();
  std::vector<Match> delimiters;
  std::vector<Match> parts;
  Words::Cutter cutter(words);
  for (const Words::Word& word : words->words()) {
    const absl::string_view text = words->TextOf(word);
    delimiters.clear();
    for (size_t at = text.find(replacement_); at != absl::string_view::npos;
         at = text.find(replacement_, at + replacement_.size())) {
      delimiters.push_back({at, at + replacement_.size()});
    }
    SplitAt(delimiters, text.size(), /*inverted=*/false,
            SplitBehavior::kMergedWithNext, &parts);
    cutter.Cut(word, parts);
  }
  return absl::OkStatus();
}

}  // namespace cupola::model::tokenizer
