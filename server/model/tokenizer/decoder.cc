#include "server/model/tokenizer/decoder.h"

#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "server/model/status_macros.h"
#include "server/model/tokenizer/byte_level.h"
#include "server/model/tokenizer/metaspace.h"
#include "server/model/tokenizer/pattern.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

class ByteLevelStep : public DecoderStep {
 public:
  absl::Status Apply(std::vector<std::string>* tokens) const override {
    std::string bytes;
    for (std::string& token : *tokens) {
      RETURN_IF_ERROR(ApplyToPiece(&token));
      bytes += token;
    }
    *tokens = {ToUtf8Lossy(bytes)};
    return absl::OkStatus();
  }

  absl::Status ApplyToPiece(std::string* token) const override {
    std::optional<std::string> bytes = FromByteAlphabet(*token);
    if (bytes.has_value()) *token = *std::move(bytes);
    return absl::OkStatus();
  }
};

class ByteFallbackStep : public DecoderStep {
 public:
  absl::Status Apply(std::vector<std::string>* tokens) const override {
    std::vector<std::string> result;
    std::string bytes;  // of the run of byte tokens that ends here
    const auto flush = [&] {
      if (FindInvalidUtf8(bytes) == absl::string_view::npos) {
        if (!bytes.empty()) result.push_back(std::move(bytes));
      } else {
        result.insert(result.end(), bytes.size(), ToUtf8Lossy("\xFF"));
      }
      bytes.clear();
    };
    for (std::string& token : *tokens) {
      if (const std::optional<char> byte = ReadByte(token)) {
        bytes.push_back(*byte);
        continue;
      }
      flush();
      result.push_back(std::move(token));
    }
    flush();
    *tokens = std::move(result);
    return absl::OkStatus();
  }

  absl::Status ApplyToPiece(std::string* token) const override {
    if (const std::optional<char> byte = ReadByte(*token)) {
      token->assign(1, *byte);
    }
    return absl::OkStatus();
  }

 private:
  static std::optional<char> ReadByte(absl::string_view token) {
    uint32_t value = 0;
    if (token.size() != 6 || !absl::StartsWith(token, "<0x") ||
        token[5] != '>' || !absl::ascii_isxdigit(token[3]) ||
        !absl::ascii_isxdigit(token[4]) ||
        !absl::SimpleHexAtoi(token.substr(3, 2), &value)) {
      return std::nullopt;
    }
    return static_cast<char>(value);
  }
};

class ReplaceStep : public DecoderStep {
 public:
  ReplaceStep(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  absl::Status Apply(std::vector<std::string>* tokens) const override {
    for (std::string& token : *tokens) RETURN_IF_ERROR(ApplyToPiece(&token));
    return absl::OkStatus();
  }

  absl::Status ApplyToPiece(std::string* token) const override {
    std::vector<Match> matches;
    RETURN_IF_ERROR(pattern_.FindAll(*token, &matches));
    if (matches.empty()) return absl::OkStatus();
    std::string result;
    size_t kept = 0;
    for (const Match& match : matches) {
      result.append(*token, kept, match.begin - kept);
      result += content_;
      kept = match.end;
    }
    result.append(*token, kept, std::string::npos);
    *token = std::move(result);
    return absl::OkStatus();
  }

 private:
  const Pattern pattern_;
  const std::string content_;
};

class FuseStep : public DecoderStep {
 public:
  absl::Status Apply(std::vector<std::string>* tokens) const override {
    *tokens = {absl::StrJoin(*tokens, "")};
    return absl::OkStatus();
  }
  absl::Status ApplyToPiece(std::string*) const override {
    return absl::OkStatus();
  }
};

// Removes up to `start` and `stop` times a character from each token's ends.
// Behind a Fuse, that is from the text's ends: no token's own business.
class StripStep : public DecoderStep {
 public:
  StripStep(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}

  absl::Status Apply(std::vector<std::string>* tokens) const override {
    for (std::string& token : *tokens) {
      absl::string_view rest = token;
      for (int64_t i = 0; i < start_ && absl::StartsWith(rest, content_); ++i) {
        rest.remove_prefix(content_.size());
      }
      for (int64_t i = 0; i < stop_ && absl::EndsWith(rest, content_); ++i) {
        rest.remove_suffix(content_.size());
      }
      token = std::string(rest);
    }
    return absl::OkStatus();
  }
  absl::Status ApplyToPiece(std::string*) const override {
    return absl::OkStatus();
  }

 private:
  const std::string content_;
  const int64_t start_;
  const int64_t stop_;
};

class MetaspaceStep : public DecoderStep {
 public:
  explicit MetaspaceStep(Metaspace metaspace)
      : metaspace_(std::move(metaspace)) {}

  absl::Status Apply(std::vector<std::string>* tokens) const override {
    for (size_t i = 0; i < tokens->size(); ++i) {
      const bool drop = i == 0 && metaspace_.drops_first();
      (*tokens)[i] = absl::StrReplaceAll(
          (*tokens)[i], {{metaspace_.replacement(), drop ? "" : " "}});
    }
    return absl::OkStatus();
  }
  absl::Status ApplyToPiece(std::string* token) const override {
    *token = absl::StrReplaceAll(*token, {{metaspace_.replacement(), " "}});
    return absl::OkStatus();
  }

 private:
  const Metaspace metaspace_;
};

using Made = absl::StatusOr<std::unique_ptr<const DecoderStep>>;

Made MakeReplace(const Json& json) {
  ASSIGN_OR_RETURN(Pattern pattern,
                   Pattern::FromJson(json.value("pattern", Json())));
  ASSIGN_OR_RETURN(std::string content, RequiredString(json, "content"));
  return std::make_unique<ReplaceStep>(std::move(pattern), std::move(content));
}

Made MakeStrip(const Json& json) {
  ASSIGN_OR_RETURN(std::string content, RequiredString(json, "content"));
  ASSIGN_OR_RETURN(const int64_t start, RequiredInt(json, "start"));
  ASSIGN_OR_RETURN(const int64_t stop, RequiredInt(json, "stop"));
  if (content.empty() || start < 0 || stop < 0) {
    return absl::InvalidArgumentError(
        "Strip needs a \"content\" and no negative \"start\" or \"stop\"");
  }
  return std::make_unique<StripStep>(std::move(content), start, stop);
}

Made MakeMetaspace(const Json& json) {
  ASSIGN_OR_RETURN(Metaspace metaspace, Metaspace::FromJson(json));
  return std::make_unique<MetaspaceStep>(std::move(metaspace));
}

Made MakeStep(const Json& json, const std::string& type) {
  if (type == "ByteLevel") return std::make_unique<ByteLevelStep>();
  if (type == "ByteFallback") return std::make_unique<ByteFallbackStep>();
  if (type == "Fuse") return std::make_unique<FuseStep>();
  if (type == "Replace") return MakeReplace(json);
  if (type == "Strip") return MakeStrip(json);
  if (type == "Metaspace") return MakeMetaspace(json);
  return absl::InvalidArgumentError(
      absl::StrCat("decoder \"", type, "\" is not supported"));
}

}  // namespace

absl::Status Decoder::AddStep(const Json& json, Decoder* decoder) {
  ASSIGN_OR_RETURN(const std::string type, RequiredString(json, "type"));
  if (type != "Sequence") {
    ASSIGN_OR_RETURN(auto step, MakeStep(json, type));
    decoder->steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  const auto list = json.find("decoders");
  if (list == json.end() || !list->is_array()) {
    return absl::InvalidArgumentError("\"decoders\" must be a list");
  }
  for (const Json& item : *list) RETURN_IF_ERROR(AddStep(item, decoder));
  return absl::OkStatus();
}

absl::StatusOr<Decoder> Decoder::FromJson(const Json& json) {
  Decoder decoder;
  if (json.is_null()) return decoder;
  decoder.present_ = true;
  RETURN_IF_ERROR(AddStep(json, &decoder));
  return decoder;
}

absl::StatusOr<std::string> Decoder::Decode(
    std::vector<std::string> tokens) const {
  for (const auto& step : steps_) RETURN_IF_ERROR(step->Apply(&tokens));
  return absl::StrJoin(tokens, present_ ? "" : " ");
}

absl::StatusOr<std::string> Decoder::Piece(std::string token) const {
  for (const auto& step : steps_) RETURN_IF_ERROR(step->ApplyToPiece(&token));
  return token;
}

}  // namespace cupola::model::tokenizer
