#include "server/model/tokenizer/pre_tokenizer.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/byte_level.h"
#include "server/model/tokenizer/characters.h"
#include "server/model/tokenizer/metaspace.h"
#include "server/model/tokenizer/pattern.h"
#include "server/model/tokenizer/split.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

// The regex of GPT-2's encoder, which ByteLevel has built in.
constexpr absl::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class PatternSplit : public PreTokenizer {
 public:
  PatternSplit(Pattern pattern, SplitBehavior behavior, bool inverted)
      : pattern_(std::move(pattern)),
        behavior_(behavior),
        inverted_(inverted) {}

  absl::Status Apply(Words* words) const override {
    std::vector<Match> delimiters;
    std::vector<Match> parts;
    Words::Cutter cutter(words);
    for (const Words::Word& word : words->words()) {
      delimiters.clear();
      RETURN_IF_ERROR(pattern_.FindAll(words->TextOf(word), &delimiters));
      SplitAt(delimiters, word.end - word.begin, inverted_, behavior_, &parts);
      cutter.Cut(word, parts);
    }
    return absl::OkStatus();
  }

 private:
  const Pattern pattern_;
  const SplitBehavior behavior_;
  const bool inverted_;
};

// Splits at each character of a class.
class CharacterSplit : public PreTokenizer {
 public:
  CharacterSplit(bool (*is_delimiter)(char32_t), SplitBehavior behavior)
      : is_delimiter_(is_delimiter), behavior_(behavior) {}

  absl::Status Apply(Words* words) const override {
    std::vector<Match> delimiters;
    std::vector<Match> parts;
    Words::Cutter cutter(words);
    for (const Words::Word& word : words->words()) {
      const absl::string_view text = words->TextOf(word);
      delimiters.clear();
      for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        if (is_delimiter_(NextCharacter(text, &at))) {
          delimiters.push_back({begin, at});
        }
      }
      SplitAt(delimiters, text.size(), /*inverted=*/false, behavior_, &parts);
      cutter.Cut(word, parts);
    }
    return absl::OkStatus();
  }

 private:
  bool (*const is_delimiter_)(char32_t);
  const SplitBehavior behavior_;
};

// "Whitespace" keeps the runs of \w and the runs of neither \w nor \s.
class WordRuns : public PreTokenizer {
 public:
  absl::Status Apply(Words* words) const override {
    enum Kind { kSpace, kWord, kOther };
    std::vector<Match> runs;
    Words::Cutter cutter(words);
    for (const Words::Word& word : words->words()) {
      const absl::string_view text = words->TextOf(word);
      runs.clear();
      Kind last = kSpace;
      for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        const char32_t c = NextCharacter(text, &at);
        const Kind kind = IsWord(c) ? kWord : IsWhitespace(c) ? kSpace : kOther;
        if (kind != kSpace && kind == last) {
          runs.back().end = at;
        } else if (kind != kSpace) {
          runs.push_back({begin, at});
        }
        last = kind;
      }
      cutter.Cut(word, runs);
    }
    return absl::OkStatus();
  }
};

class PrefixSpace : public PreTokenizer {
 public:
  absl::Status Apply(Words* words) const override {
    words->RewriteEach(
        [](const Words::Word& word, absl::string_view old, std::string* text) {
          const bool prepend = !absl::StartsWith(old, " ");
          if (prepend) *text += ' ';
          absl::StrAppend(text, old);
          return word.head == 0 ? 0 : word.head + prepend;
        });
    return absl::OkStatus();
  }
};

class ByteAlphabet : public PreTokenizer {
 public:
  absl::Status Apply(Words* words) const override {
    words->RewriteEach(
        [](const Words::Word& word, absl::string_view old, std::string* text) {
          const std::string head = ToByteAlphabet(old.substr(0, word.head));
          absl::StrAppend(text, head, ToByteAlphabet(old.substr(word.head)));
          return head.size();
        });
    return absl::OkStatus();
  }
};

using Steps = PreTokenizer::Steps;

absl::Status AddByteLevel(const Json& json, Steps* steps) {
  ASSIGN_OR_RETURN(const bool prefix, BoolOr(json, "add_prefix_space", true));
  ASSIGN_OR_RETURN(const bool use_regex, BoolOr(json, "use_regex", true));
  if (prefix) steps->steps.push_back(std::make_unique<PrefixSpace>());
  if (use_regex) {
    ASSIGN_OR_RETURN(Pattern pattern,
                     Pattern::FromJson({{"Regex", std::string(kGpt2Regex)}}));
    steps->steps.push_back(std::make_unique<PatternSplit>(
        std::move(pattern), SplitBehavior::kIsolated, /*inverted=*/false));
  }
  steps->byte_level = true;
  return absl::OkStatus();
}

absl::Status AddSplit(const Json& json, Steps* steps) {
  ASSIGN_OR_RETURN(Pattern pattern,
                   Pattern::FromJson(json.value("pattern", Json())));
  ASSIGN_OR_RETURN(const std::string name, RequiredString(json, "behavior"));
  ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseSplitBehavior(name));
  ASSIGN_OR_RETURN(const bool inverted, BoolOr(json, "invert", false));
  steps->steps.push_back(
      std::make_unique<PatternSplit>(std::move(pattern), behavior, inverted));
  return absl::OkStatus();
}

absl::Status AddStep(const Json& json, Steps* steps) {
  ASSIGN_OR_RETURN(const std::string type, RequiredString(json, "type"));
  if (type == "Sequence") {
    const auto list = json.find("pretokenizers");
    if (list == json.end() || !list->is_array()) {
      return absl::InvalidArgumentError("\"pretokenizers\" must be a list");
    }
    for (const Json& item : *list) RETURN_IF_ERROR(AddStep(item, steps));
    return absl::OkStatus();
  }
  // Whatever follows a ByteLevel works on its alphabet.
  if (steps->byte_level) {
    steps->steps.push_back(std::make_unique<ByteAlphabet>());
    steps->byte_level = false;
  }
  const auto split_at = [steps](bool (*is)(char32_t), SplitBehavior behavior) {
    steps->steps.push_back(std::make_unique<CharacterSplit>(is, behavior));
    return absl::OkStatus();
  };
  if (type == "ByteLevel") return AddByteLevel(json, steps);
  if (type == "Split") return AddSplit(json, steps);
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool each, BoolOr(json, "individual_digits", false));
    return split_at(IsNumeric, each ? SplitBehavior::kIsolated
                                    : SplitBehavior::kContiguous);
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const std::string name,
                     StringOr(json, "behavior", "Isolated"));
    ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseSplitBehavior(name));
    return split_at(IsPunctuation, behavior);
  }
  if (type == "WhitespaceSplit") {
    return split_at(IsWhitespace, SplitBehavior::kRemoved);
  }
  if (type == "Whitespace") {
    steps->steps.push_back(std::make_unique<WordRuns>());
    return absl::OkStatus();
  }
  if (type == "Metaspace") {
    ASSIGN_OR_RETURN(auto metaspace, Metaspace::FromJson(json));
    steps->steps.push_back(std::make_unique<Metaspace>(std::move(metaspace)));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("pre_tokenizer \"", type, "\" is not supported"));
}

}  // namespace

absl::StatusOr<PreTokenizer::Steps> PreTokenizer::FromJson(const Json& json) {
  Steps steps;
  if (!json.is_null()) RETURN_IF_ERROR(AddStep(json, &steps));
  return steps;
}

}  // namespace cupola::model::tokenizer
