#include "server/model/model_config.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/model/config_fields.h"
#include "server/model/model_families.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

// Why a family or a variant is refused, where the config tells.
absl::Status Refuse(const Json& config, const std::string& family) {
  ConfigFields fields(config);
  for (const char* key :
       {"num_local_experts", "num_experts", "n_routed_experts"}) {
    const Json& experts = fields.Value(key);
    if (experts.is_number() && experts.get<double>() > 0) {
      return NotServed(absl::StrCat("a mixture of experts ('", family, "')"));
    }
  }
  const Json& alibi = fields.Value("alibi");
  if (alibi.is_boolean() && alibi.get<bool>()) return NotServed("alibi");
  if (!fields.Value("quantization_config").is_null()) {
    return NotServed("a quantized checkpoint ('quantization_config')");
  }
  if (ModelFamilies().count(family) > 0) return absl::OkStatus();
  std::vector<std::string> names;
  for (const auto& [name, reader] : ModelFamilies()) names.push_back(name);
  return absl::UnimplementedError(absl::StrCat(
      "model_type '", family,
      "' is not served; these are: ", absl::StrJoin(names, ", "), ", gemma3"));
}

std::string DescribeRotary(const Rotary& rotary) {
  std::string text =
      absl::StrCat(rotary.rotary_dim, rotary.adjacent_pairs ? "a" : "h");
  for (double frequency : rotary.inverse_frequencies) {
    absl::StrAppendFormat(&text, ",%.17g", frequency);
  }
  return text;
}

std::string Fingerprint(const ModelConfig& m) {
  std::string text = absl::StrCat("config/1;", m.family);
  for (int64_t value : {int64_t{m.n_layers},
                        m.d_model,
                        m.n_heads,
                        m.n_kv_heads,
                        m.d_head,
                        m.d_mlp,
                        m.d_vocab,
                        m.n_ctx,
                        static_cast<int64_t>(m.norm),
                        static_cast<int64_t>(m.norm_weight_offset),
                        static_cast<int64_t>(m.post_norms),
                        static_cast<int64_t>(m.qk_norm),
                        static_cast<int64_t>(m.parallel_blocks),
                        static_cast<int64_t>(m.shared_ln1),
                        static_cast<int64_t>(m.activation),
                        static_cast<int64_t>(m.gated_mlp),
                        static_cast<int64_t>(m.qkv_bias),
                        static_cast<int64_t>(m.attention_out_bias),
                        static_cast<int64_t>(m.mlp_bias),
                        static_cast<int64_t>(m.unembed_bias),
                        static_cast<int64_t>(m.positions),
                        static_cast<int64_t>(m.scale_embedding),
                        static_cast<int64_t>(m.tied_unembedding),
                        static_cast<int64_t>(m.default_prepend_bos),
                        m.bos_token_id}) {
    absl::StrAppend(&text, ";", value);
  }
  absl::StrAppendFormat(&text, ";%.17g;%.17g;%.17g;", m.norm_eps,
                        m.attention_softcap, m.logit_softcap);
  absl::StrAppend(&text, DescribeRotary(m.rotary), ";",
                  DescribeRotary(m.local_rotary));
  for (const AttentionLayer& layer : m.attention) {
    absl::StrAppendFormat(&text, ";%d,%d,%.17g", layer.window,
                          layer.local_rotary, layer.scale);
  }
  return text;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const Json& json) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError("a config must be a JSON object");
  }
  ASSIGN_OR_RETURN(std::string family, RequiredString(json, "model_type"));
  const Json* config = &json;
  if (family == "gemma3") {
    const auto text = json.find("text_config");
    if (text == json.end() || !text->is_object()) {
      return absl::InvalidArgumentError(
          "a config of model_type gemma3 needs an object 'text_config'");
    }
    config = &*text;
    family = "gemma3_text";
  }
  RETURN_IF_ERROR(Refuse(json, family));
  RETURN_IF_ERROR(Refuse(*config, family));

  ModelConfig model;
  model.family = family;
  ConfigFields fields(*config);
  ModelFamilies().at(family)(fields, *config, &model);
  RETURN_IF_ERROR(fields.status());

  const Json& bos =
      fields.Value("bos_token_id").is_null() && json.contains("bos_token_id")
          ? json["bos_token_id"]
          : fields.Value("bos_token_id");
  if (bos.is_number_integer()) {
    model.bos_token_id = bos.get<int64_t>();
    // Some configs name an id that the vocabulary does not have; nothing is
    // computed from it, so that is no reason to refuse the model.
    if (model.bos_token_id < 0 || model.bos_token_id >= model.d_vocab) {
      model.bos_token_id = -1;
    }
  }
  model.fingerprint = Fingerprint(model);
  return model;
}

const char* ProcessingName(Processing processing) {
  return processing == Processing::kRaw ? "raw" : "folded";
}

}  // namespace cupola::model
