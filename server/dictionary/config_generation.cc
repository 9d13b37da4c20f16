#include "server/dictionary/config_generation.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/model/status_macros.h"

namespace cupola::dictionary {
namespace {

using model::Json;

bool HasValue(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && !it->is_null();
}

void SetDefault(Json* json, const char* key, Json value) {
  if (!HasValue(*json, key)) (*json)[key] = std::move(value);
}

// Whether a Python version is older than 6.0.0rc0, by the ordering of PEP 440:
// 6.0.0's development, alpha and beta releases come before its candidates.
absl::StatusOr<bool> IsBefore6(absl::string_view version) {
  const auto leading_number = [&version](int64_t* number) {
    size_t digits = 0;
    while (digits < version.size() && absl::ascii_isdigit(version[digits])) {
      ++digits;
    }
    const bool ok = absl::SimpleAtoi(version.substr(0, digits), number);
    if (ok) version.remove_prefix(digits);
    return ok;
  };
  const absl::string_view whole = version;
  int64_t number = 0;
  if (!leading_number(&number)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sae_lens_version is \"", whole,
                     "\": a version such as \"6.0.0\" is accepted"));
  }
  if (number != 6) return number < 6;
  while (!version.empty() && version[0] == '.' && version.size() > 1 &&
         absl::ascii_isdigit(version[1])) {
    version.remove_prefix(1);
    leading_number(&number);
    if (number != 0) return false;
  }
  while (!version.empty() && !absl::ascii_isalpha(version[0])) {
    version.remove_prefix(1);
  }
  return absl::StartsWith(version, "a") || absl::StartsWith(version, "b") ||
         absl::StartsWith(version, "dev");
}

absl::StatusOr<bool> IsFlatGeneration(const Json& flat) {
  ASSIGN_OR_RETURN(const std::string version,
                   model::StringOr(flat, "sae_lens_version", ""));
  if (version.empty()) return true;
  return IsBefore6(version);
}

void Rename(Json* json, const char* from, const char* to) {
  if (HasValue(*json, from) && !HasValue(*json, to)) {
    (*json)[to] = (*json)[from];
  }
  json->erase(from);
}

absl::Status UpgradeActivation(Json* flat) {
  ASSIGN_OR_RETURN(const std::string activation,
                   model::StringOr(*flat, "activation_fn", "relu"));
  if (activation == "relu") return absl::OkStatus();
  if (activation != "topk") {
    return absl::UnimplementedError(
        absl::StrCat("activation_fn is \"", activation,
                     "\": \"relu\" and \"topk\" are accepted"));
  }
  const auto kwargs = flat->find("activation_fn_kwargs");
  if (kwargs == flat->end() || !kwargs->is_object() ||
      !HasValue(*kwargs, "k")) {
    return absl::InvalidArgumentError(
        "activation_fn is \"topk\" but activation_fn_kwargs has no \"k\"");
  }
  (*flat)["architecture"] = "topk";
  (*flat)["k"] = (*kwargs)["k"];
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> ToCurrentGeneration(const Json& cfg) {
  if (!cfg.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cfg.json holds ", cfg.type_name(), ": an object is accepted"));
  }
  Json flat = cfg;
  flat.erase("metadata");
  if (HasValue(cfg, "metadata")) {
    const Json& metadata = cfg["metadata"];
    if (!metadata.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "metadata is ", metadata.type_name(), ": an object is accepted"));
    }
    for (const auto& [key, value] : metadata.items()) {
      if (!HasValue(flat, key.c_str())) flat[key] = value;
    }
  }
  ASSIGN_OR_RETURN(const bool before_6, IsFlatGeneration(flat));
  if (!before_6) return flat;

  Rename(&flat, "hook_point", "hook_name");
  Rename(&flat, "hook_point_head_index", "hook_head_index");
  Rename(&flat, "activation_fn_str", "activation_fn");
  SetDefault(&flat, "prepend_bos", true);
  SetDefault(&flat, "apply_b_dec_to_input", true);
  SetDefault(&flat, "architecture", "standard");
  ASSIGN_OR_RETURN(const std::string hook,
                   model::StringOr(flat, "hook_name", ""));
  SetDefault(&flat, "reshape_activations",
             absl::StrContains(hook, "hook_z") ? "hook_z" : "none");
  RETURN_IF_ERROR(UpgradeActivation(&flat));
  const auto normalize = flat.find("normalize_activations");
  if (normalize != flat.end() && normalize->is_boolean()) {
    *normalize = normalize->get<bool>() ? "expected_average_only_in" : "none";
  }
  return flat;
}

}  // namespace cupola::dictionary
