#include "server/model/tokenizer/onig_syntax.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/onig_class.h"
#include "server/model/tokenizer/onig_properties.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    if (FindInvalidUtf8(in_) != absl::string_view::npos) {
      return BadRegex("not UTF-8");
    }
    groups_.push_back({});
    while (at_ < in_.size()) RETURN_IF_ERROR(Step());
    if (groups_.size() != 1) return BadRegex("a ( is not closed");
    out_.append(groups_.back().implied, ')');
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start = 0;  // where it starts in out_
    int implied = 0;   // groups that (?i) opened and its ) must close too
  };

  bool Sees(absl::string_view what) const {
    return in_.substr(at_, what.size()) == what;
  }

  void Atom(absl::string_view text) {
    atom_ = out_.size();
    absl::StrAppend(&out_, text);
  }

  absl::Status Step() {
    switch (in_[at_]) {
      case '[': {
        ++at_;
        ASSIGN_OR_RETURN(const std::string set, TranslateClass(in_, &at_));
        Atom(set);
        return absl::OkStatus();
      }
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '\\':
        return Escape();
      case '{':
        return Interval();
      case '|':
        ++at_;
        out_ += '|';
        atom_.reset();
        return absl::OkStatus();
      case '^':
      case '$':
      case '.':
        Atom(in_.substr(at_++, 1));
        return absl::OkStatus();
      case '*':
      case '+':
      case '?':
        out_ += in_[at_++];
        return absl::OkStatus();
      default: {
        ASSIGN_OR_RETURN(const char32_t character, ReadCharacter(in_, &at_));
        Atom(QuoteCharacter(character));
        return absl::OkStatus();
      }
    }
  }

  absl::Status OpenGroup() {
    groups_.push_back({out_.size(), 0});
    atom_.reset();
    for (const absl::string_view plain :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (Sees(plain)) {
        at_ += plain.size();
        absl::StrAppend(&out_, plain);
        return absl::OkStatus();
      }
    }
    if (!Sees("(?")) {
      ++at_;
      out_ += '(';
      return absl::OkStatus();
    }
    // Options: i as in PCRE2; m is PCRE2's s.
    size_t at = at_ + 2;
    std::string options;
    for (; at < in_.size() && in_[at] != ')' && in_[at] != ':'; ++at) {
      if (in_[at] != 'i' && in_[at] != 'm' && in_[at] != '-') {
        return BadRegex(absl::StrCat("group \"", in_.substr(at_, at - at_ + 1),
                                     "\" is not supported"));
      }
      options += in_[at] == 'm' ? 's' : in_[at];
    }
    if (at == in_.size()) return BadRegex("a ( is not closed");
    absl::StrAppend(&out_, "(?", options, ":");
    if (in_[at] == ')') {
      // (?i) reaches to the end of the group around it, over its | too.
      groups_.pop_back();
      ++groups_.back().implied;
    }
    at_ = at + 1;
    return absl::OkStatus();
  }

  absl::Status CloseGroup() {
    if (groups_.size() == 1) return BadRegex("a ) without (");
    out_.append(groups_.back().implied + 1, ')');
    atom_ = groups_.back().start;
    groups_.pop_back();
    ++at_;
    return absl::OkStatus();
  }

  absl::Status Escape() {
    size_t behind = at_ + 1;
    CharacterSet set;
    ASSIGN_OR_RETURN(const bool is_set,
                     ReadSetEscape(in_, &behind, /*in_brackets=*/false, &set));
    if (is_set) {
      at_ = behind;
      Atom(set.ToPattern());
      return absl::OkStatus();
    }
    const char letter = in_[at_ + 1];
    switch (letter) {
      case 'A':
      case 'z':
      case 'Z':
      case 'N':
      case 'R':
        Atom(in_.substr(at_, 2));
        break;
      case 'O':
        Atom("(?s:.)");
        break;
      case 'b':
      case 'B': {
        const std::string word =
            absl::StrCat("[", WordItems(/*in_brackets=*/false), "]");
        const char* const behind_is = letter == 'b' ? "(?!" : "(?=";
        const char* const behind_not = letter == 'b' ? "(?=" : "(?!";
        Atom(absl::StrCat("(?:(?<=", word, ")", behind_is, word, ")|(?<!", word,
                          ")", behind_not, word, "))"));
        break;
      }
      default: {
        if (absl::ascii_isdigit(letter) && letter != '0') {
          return BadRegex("back references are not supported");
        }
        ASSIGN_OR_RETURN(const char32_t character, ReadCharacter(in_, &at_));
        Atom(QuoteCharacter(character));
        return absl::OkStatus();
      }
    }
    at_ += 2;
    return absl::OkStatus();
  }

  // {n}, {n,}, {n,m}, {,m}; anything else is a plain brace.
  absl::Status Interval() {
    const size_t close = in_.find('}', at_);
    const absl::string_view body = close == absl::string_view::npos
                                       ? absl::string_view()
                                       : in_.substr(at_ + 1, close - at_ - 1);
    bool plain = body.empty() || body == ",";
    size_t commas = 0;
    for (const char c : body) {
      commas += c == ',';
      plain = plain || (c != ',' && !absl::ascii_isdigit(c));
    }
    if (plain || commas > 1 || !atom_.has_value()) {
      ++at_;
      Atom("\\{");
      return absl::OkStatus();
    }
    absl::StrAppend(&out_, "{", body.front() == ',' ? "0" : "", body, "}");
    at_ = close + 1;
    // A + behind an interval repeats it, and so does a ? behind {n}; only
    // {n,m}? is the lazy form.
    if (Sees("+") || Sees("*") || (Sees("?") && commas == 0)) {
      out_.insert(*atom_, "(?:");
      out_ += ')';
    } else if (Sees("?")) {
      out_ += '?';
      ++at_;
    }
    return absl::OkStatus();
  }

  absl::string_view in_;
  size_t at_ = 0;
  std::string out_;
  std::optional<size_t> atom_;  // where the last atom starts in out_
  std::vector<Group> groups_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOnigPattern(absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace cupola::model::tokenizer
