#include "server/model/tokenizer/normalizer.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/byte_level.h"
#include "server/model/tokenizer/characters.h"
#include "server/model/tokenizer/normal_form.h"
#include "server/model/tokenizer/pattern.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 30;

class NormalFormStep : public Normalizer {
 public:
  explicit NormalFormStep(NormalForm form) : form_(form) {}

  absl::Status Apply(NormalizedText* text) const override {
    std::string normal = ToNormalForm(form_, text->text);
    if (normal != text->text) {
      const absl::string_view all = text->text;
      text->head = std::min(
          ToNormalForm(form_, all.substr(0, text->head)).size(), normal.size());
      text->text = std::move(normal);
    }
    return absl::OkStatus();
  }

 private:
  const NormalForm form_;
};

// Replaces each character by what `rewrite` appends for it: maybe nothing.
class PerCharacter : public Normalizer {
 public:
  using Rewrite = std::function<void(char32_t, std::string*)>;
  explicit PerCharacter(Rewrite rewrite) : rewrite_(std::move(rewrite)) {}

  absl::Status Apply(NormalizedText* text) const override {
    NormalizedText result;
    result.text.reserve(text->text.size());
    for (size_t at = 0; at < text->text.size();) {
      const bool in_head = at < text->head;
      rewrite_(NextCharacter(text->text, &at), &result.text);
      if (in_head) result.head = result.text.size();
    }
    *text = std::move(result);
    return absl::OkStatus();
  }

 private:
  const Rewrite rewrite_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}

  absl::Status Apply(NormalizedText* text) const override {
    const absl::string_view all = text->text;
    size_t end = all.size();
    while (right_ && end > 0) {
      const size_t last = CharacterStart(all, end);
      size_t at = last;
      if (!IsWhitespace(NextCharacter(all, &at))) break;
      end = last;
    }
    size_t begin = 0;
    while (left_ && begin < end) {
      size_t at = begin;
      if (!IsWhitespace(NextCharacter(all, &at))) break;
      begin = at;
    }
    text->head = std::min(text->head, end);
    text->head -= std::min(text->head, begin);
    text->text = std::string(all.substr(begin, end - begin));
    return absl::OkStatus();
  }

 private:
  const bool left_;
  const bool right_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  absl::Status Apply(NormalizedText* text) const override {
    std::vector<Match> matches;
    RETURN_IF_ERROR(pattern_.FindAll(text->text, &matches));
    if (matches.empty()) return absl::OkStatus();
    if (text->text.size() + matches.size() * content_.size() > kMaxBytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the normalizer makes more than ", kMaxBytes, " bytes of this text"));
    }
    NormalizedText result;
    size_t kept = 0;
    // Text that is kept keeps its origin; what replaces a match comes from the
    // match's last byte.
    const auto keep = [&](size_t end) {
      if (kept < text->head) {
        result.head = result.text.size() + std::min(end, text->head) - kept;
      }
      result.text.append(text->text, kept, end - kept);
    };
    for (const Match& match : matches) {
      keep(match.begin);
      result.text += content_;
      const bool from_head = match.end == 0 || match.end - 1 < text->head;
      if (from_head) result.head = result.text.size();
      kept = match.end;
    }
    keep(text->text.size());
    *text = std::move(result);
    return absl::OkStatus();
  }

 private:
  const Pattern pattern_;
  const std::string content_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}

  absl::Status Apply(NormalizedText* text) const override {
    if (text->text.empty()) return absl::OkStatus();
    text->text.insert(0, prefix_);
    if (text->head > 0) text->head += prefix_.size();
    return absl::OkStatus();
  }

 private:
  const std::string prefix_;
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<const Normalizer>> steps)
      : steps_(std::move(steps)) {}

  absl::Status Apply(NormalizedText* text) const override {
    for (const auto& step : steps_) RETURN_IF_ERROR(step->Apply(text));
    return absl::OkStatus();
  }

 private:
  const std::vector<std::unique_ptr<const Normalizer>> steps_;
};

using Made = absl::StatusOr<std::unique_ptr<const Normalizer>>;

Made MakeSequence(const Json& json) {
  const auto list = json.find("normalizers");
  if (list == json.end() || !list->is_array()) {
    return absl::InvalidArgumentError("\"normalizers\" must be a list");
  }
  std::vector<std::unique_ptr<const Normalizer>> steps;
  for (const Json& item : *list) {
    ASSIGN_OR_RETURN(auto step, Normalizer::FromJson(item));
    if (step == nullptr) {
      return absl::InvalidArgumentError("\"normalizers\" holds a null");
    }
    steps.push_back(std::move(step));
  }
  return std::make_unique<Sequence>(std::move(steps));
}

Made MakeStrip(const Json& json) {
  ASSIGN_OR_RETURN(const bool left, BoolOr(json, "strip_left", false));
  ASSIGN_OR_RETURN(const bool right, BoolOr(json, "strip_right", false));
  return std::make_unique<Strip>(left, right);
}

Made MakeReplace(const Json& json) {
  ASSIGN_OR_RETURN(Pattern pattern,
                   Pattern::FromJson(json.value("pattern", Json())));
  ASSIGN_OR_RETURN(std::string content, RequiredString(json, "content"));
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}

Made MakePrepend(const Json& json) {
  ASSIGN_OR_RETURN(std::string prefix, RequiredString(json, "prepend"));
  return std::make_unique<Prepend>(std::move(prefix));
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Normalizer>> Normalizer::FromJson(
    const Json& json) {
  if (json.is_null()) return std::unique_ptr<const Normalizer>();
  ASSIGN_OR_RETURN(const std::string type, RequiredString(json, "type"));
  const auto form = [](NormalForm which) -> Made {
    return std::make_unique<NormalFormStep>(which);
  };
  if (type == "Sequence") return MakeSequence(json);
  if (type == "NFC") return form(NormalForm::kNfc);
  if (type == "NFD") return form(NormalForm::kNfd);
  if (type == "NFKC") return form(NormalForm::kNfkc);
  if (type == "NFKD") return form(NormalForm::kNfkd);
  if (type == "Strip") return MakeStrip(json);
  if (type == "Replace") return MakeReplace(json);
  if (type == "Prepend") return MakePrepend(json);
  if (type == "Lowercase") {
    return std::make_unique<PerCharacter>(AppendLowercase);
  }
  if (type == "StripAccents") {
    return std::make_unique<PerCharacter>([](char32_t c, std::string* text) {
      if (!IsCombiningMark(c)) AppendCharacter(c, text);
    });
  }
  if (type == "ByteLevel") {
    return std::make_unique<PerCharacter>([](char32_t c, std::string* text) {
      std::string bytes;
      AppendCharacter(c, &bytes);
      *text += ToByteAlphabet(bytes);
    });
  }
  return absl::InvalidArgumentError(
      absl::StrCat("normalizer \"", type, "\" is not supported"));
}

}  // namespace cupola::model::tokenizer
