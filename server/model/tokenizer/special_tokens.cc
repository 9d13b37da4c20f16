#include "server/model/tokenizer/special_tokens.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::model::tokenizer {
namespace {

// A missing file is an empty object.
absl::StatusOr<Json> ReadOptional(const std::string& path) {
  absl::StatusOr<Json> json = ReadJsonFile(path);
  if (absl::IsNotFound(json.status())) return Json::object();
  if (json.ok() && !json->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not an object"));
  }
  return json;
}

absl::StatusOr<std::optional<std::string>> ReadToken(const Json& file,
                                                     const char* key) {
  const auto it = file.find(key);
  if (it == file.end() || it->is_null()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\" is neither a string nor an object"));
  }
  ASSIGN_OR_RETURN(std::string content, RequiredString(*it, "content"));
  return content;
}

// {"<s>": {"ids": [1], ...}, ...}
absl::StatusOr<int64_t> TemplateTokenId(const Json& json,
                                        const std::string& name) {
  const auto tokens = json.find("special_tokens");
  if (tokens != json.end() && tokens->is_object()) {
    const auto token = tokens->find(name);
    if (token != tokens->end() && token->is_object()) {
      const auto ids = token->find("ids");
      if (ids != token->end() && ids->is_array() && !ids->empty() &&
          ids->front().is_number_integer()) {
        return ids->front().get<int64_t>();
      }
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the post_processor's template names \"", name,
                   "\" but its \"special_tokens\" give it no id"));
}

}  // namespace

absl::StatusOr<SpecialTokens> ReadSpecialTokens(const std::string& folder) {
  ASSIGN_OR_RETURN(const Json config, ReadOptional(absl::StrCat(
                                          folder, "/tokenizer_config.json")));
  ASSIGN_OR_RETURN(const Json map, ReadOptional(absl::StrCat(
                                       folder, "/special_tokens_map.json")));
  SpecialTokens tokens;
  const std::pair<const char*, std::optional<std::string>*> wanted[] = {
      {"bos_token", &tokens.bos},
      {"eos_token", &tokens.eos},
      {"unk_token", &tokens.unk},
  };
  for (const auto& [key, token] : wanted) {
    ASSIGN_OR_RETURN(*token,
                     ReadToken(config.contains(key) ? config : map, key));
  }
  ASSIGN_OR_RETURN(tokens.add_prefix_space,
                   BoolOr(config, "add_prefix_space", false));
  return tokens;
}

absl::StatusOr<std::optional<int64_t>> FindFirstSpecialId(const Json& json) {
  if (json.is_null()) return std::nullopt;
  ASSIGN_OR_RETURN(const std::string type, RequiredString(json, "type"));
  if (type == "Sequence") {
    const auto list = json.find("processors");
    if (list == json.end() || !list->is_array()) {
      return absl::InvalidArgumentError("\"processors\" must be a list");
    }
    for (const Json& item : *list) {
      ASSIGN_OR_RETURN(const std::optional<int64_t> id,
                       FindFirstSpecialId(item));
      if (id.has_value()) return id;
    }
    return std::nullopt;
  }
  if (type == "TemplateProcessing") {
    const auto single = json.find("single");
    if (single == json.end() || !single->is_array() || single->empty()) {
      return absl::InvalidArgumentError(
          "the post_processor's \"single\" must be a list, not empty");
    }
    const Json& first = single->front();
    if (!first.is_object() || !first.contains("SpecialToken")) {
      return std::nullopt;
    }
    ASSIGN_OR_RETURN(const std::string name,
                     RequiredString(first["SpecialToken"], "id"));
    ASSIGN_OR_RETURN(const int64_t id, TemplateTokenId(json, name));
    return id;
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    const auto cls = json.find("cls");
    if (cls == json.end() || !cls->is_array() || cls->size() != 2 ||
        !(*cls)[1].is_number_integer()) {
      return absl::InvalidArgumentError(
          "the post_processor's \"cls\" must be a token and its id");
    }
    return (*cls)[1].get<int64_t>();
  }
  return std::nullopt;
}

}  // namespace cupola::model::tokenizer
