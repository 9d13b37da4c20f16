#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_REGEX_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct pcre2_real_code_8;

namespace cupola::model::tokenizer {

struct Match {
  size_t begin;
  size_t end;
};

// A regex of a tokenizer file: Oniguruma's syntax and Unicode tables, PCRE2's
// engine (compiled to machine code where the platform can). Immutable; any
// thread may call.
class Regex {
 public:
  // INVALID_ARGUMENT: malformed, too long, or not supported; names the pattern.
  static absl::StatusOr<std::unique_ptr<const Regex>> Compile(
      absl::string_view pattern);

  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // Appends the matches in `text`, which is valid UTF-8, from left to right,
  // none overlapping. An empty match right behind the last match is not one.
  // RESOURCE_EXHAUSTED: a match took more steps or memory than the limits.
  absl::Status FindAll(absl::string_view text,
                       std::vector<Match>* matches) const;

 private:
  Regex(std::string pattern, pcre2_real_code_8* code)
      : pattern_(std::move(pattern)), code_(code) {}

  const std::string pattern_;  // as the file has it, for messages
  pcre2_real_code_8* const code_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_REGEX_H_
