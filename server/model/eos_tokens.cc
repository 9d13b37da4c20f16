#include "server/model/eos_tokens.h"

#include <set>

#include "absl/strings/str_cat.h"

namespace cupola::model {
namespace {

constexpr int64_t kMaxConfigBytes = 8 << 20;

// `json`'s, or null.
const Json& EosOf(const Json& json) {
  static const Json* const none = new Json(nullptr);
  if (!json.is_object() || !json.contains("eos_token_id")) return *none;
  return json["eos_token_id"];
}

}  // namespace

std::vector<int32_t> ReadEosTokens(const std::string& folder,
                                   const Json& config_json,
                                   const ModelConfig& config) {
  const std::string path = absl::StrCat(folder, "/generation_config.json");
  const absl::StatusOr<Json> generation = ReadJsonFile(path, kMaxConfigBytes);
  Json eos = generation.ok() ? EosOf(*generation) : Json(nullptr);
  if (eos.is_null() && config_json.contains("text_config")) {
    eos = EosOf(config_json["text_config"]);
  }
  if (eos.is_null()) eos = EosOf(config_json);
  std::set<int32_t> ids;
  for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
    if (!id.is_number_integer()) continue;
    const int64_t value = id.get<int64_t>();
    if (value >= 0 && value < config.d_vocab) {
      ids.insert(static_cast<int32_t>(value));
    }
  }
  return std::vector<int32_t>(ids.begin(), ids.end());
}

}  // namespace cupola::model
