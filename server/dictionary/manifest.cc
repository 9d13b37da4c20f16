#include "server/dictionary/manifest.h"

#include <cmath>
#include <limits>

#include "absl/base/casts.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/dictionary/config_generation.h"
#include "server/dictionary/hook_binding.h"
#include "server/model/status_macros.h"

namespace cupola::dictionary {
namespace {

using model::Json;

absl::Status Invalid(const std::string& message) {
  return absl::InvalidArgumentError(message);
}

struct ArchitectureName {
  const char* name;
  Architecture architecture;
  bool transcoder = false;
  bool skip = false;
};

constexpr ArchitectureName kArchitectures[] = {
    {"standard", Architecture::kStandard},
    {"gated", Architecture::kGated},
    {"jumprelu", Architecture::kJumpRelu},
    {"topk", Architecture::kTopK},
    {"matching_pursuit", Architecture::kMatchingPursuit},
    {"transcoder", Architecture::kStandard, true},
    {"skip_transcoder", Architecture::kStandard, true, true},
    {"jumprelu_transcoder", Architecture::kJumpRelu, true},
    {"jumprelu_skip_transcoder", Architecture::kJumpRelu, true, true},
    // Not SAELens': what sparsify trains.
    {"topk_transcoder", Architecture::kTopK, true},
    {"topk_skip_transcoder", Architecture::kTopK, true, true},
};

constexpr struct {
  const char* name;
  Normalize normalize;
} kNormalizations[] = {
    {"none", Normalize::kNone},
    {"expected_average_only_in", Normalize::kExpectedAverageOnlyIn},
    {"constant_norm_rescale", Normalize::kConstantNormRescale},
    {"layer_norm", Normalize::kLayerNorm},
};

template <typename Table>
std::string Names(const Table& table) {
  std::string names;
  for (const auto& entry : table) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", entry.name);
  }
  return names;
}

absl::Status ReadArchitecture(const Json& cfg, Manifest* manifest) {
  ASSIGN_OR_RETURN(manifest->architecture_name,
                   model::RequiredString(cfg, "architecture"));
  ASSIGN_OR_RETURN(const bool is_pair, model::BoolOr(cfg, "is_pair", false));
  ASSIGN_OR_RETURN(const bool jacobian,
                   model::BoolOr(cfg, "use_jacobian_loss", false));
  for (const ArchitectureName& known : kArchitectures) {
    if (manifest->architecture_name != known.name) continue;
    manifest->architecture = known.architecture;
    manifest->skip = known.skip;
    if (known.transcoder) manifest->kind = Kind::kTranscoder;
    if (is_pair || jacobian) {
      if (known.architecture != Architecture::kStandard &&
          known.architecture != Architecture::kTopK) {
        return Invalid(absl::StrCat(
            "architecture is \"", known.name,
            "\" in a pair: \"standard\" and \"topk\" are accepted"));
      }
      if (known.transcoder) {
        return Invalid(absl::StrCat("architecture is \"", known.name,
                                    "\" in a pair: its halves are SAEs"));
      }
      manifest->kind = Kind::kPair;
    }
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      absl::StrCat("architecture is \"", manifest->architecture_name,
                   "\": accepted are ", Names(kArchitectures)));
}

absl::StatusOr<int64_t> PositiveInt(const Json& cfg, const char* key) {
  ASSIGN_OR_RETURN(const int64_t value, model::RequiredInt(cfg, key));
  // Indices travel as int32.
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (value < 1 || value > kMax) {
    return Invalid(
        absl::StrCat(key, " is ", value, ": 1 to ", kMax, " is accepted"));
  }
  return value;
}

absl::Status ReadSizes(const Json& cfg, Manifest* manifest) {
  ASSIGN_OR_RETURN(manifest->d_in, PositiveInt(cfg, "d_in"));
  ASSIGN_OR_RETURN(manifest->d_sae, PositiveInt(cfg, "d_sae"));
  manifest->d_out = manifest->d_in;
  if (manifest->kind == Kind::kTranscoder) {
    ASSIGN_OR_RETURN(manifest->d_out, PositiveInt(cfg, "d_out"));
  }
  if (manifest->architecture == Architecture::kTopK) {
    ASSIGN_OR_RETURN(manifest->k, model::RequiredInt(cfg, "k"));
    if (manifest->k < 1 || manifest->k > manifest->d_sae) {
      return Invalid(absl::StrCat("k is ", manifest->k, ": 1 to d_sae = ",
                                  manifest->d_sae, " is accepted"));
    }
    ASSIGN_OR_RETURN(manifest->rescale_acts_by_decoder_norm,
                     model::BoolOr(cfg, "rescale_acts_by_decoder_norm", false));
  }
  return absl::OkStatus();
}

absl::Status ReadMatchingPursuit(const Json& cfg, Manifest* manifest) {
  if (manifest->architecture != Architecture::kMatchingPursuit) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(manifest->residual_threshold,
                   model::DoubleOr(cfg, "residual_threshold", 1e-2));
  if (!std::isfinite(manifest->residual_threshold)) {
    return Invalid("residual_threshold is not finite");
  }
  ASSIGN_OR_RETURN(manifest->max_iterations,
                   model::IntOr(cfg, "max_iterations", 0));
  if (manifest->max_iterations < 0) {
    return Invalid(absl::StrCat("max_iterations is ", manifest->max_iterations,
                                ": null or a positive number is accepted"));
  }
  ASSIGN_OR_RETURN(manifest->stop_on_duplicate_support,
                   model::BoolOr(cfg, "stop_on_duplicate_support", true));
  return absl::OkStatus();
}

absl::Status ReadInputTreatment(const Json& cfg, Manifest* manifest) {
  // SAELens' default is true; a transcoder cannot have it, since its b_dec has
  // the output's width.
  const bool transcoder = manifest->kind == Kind::kTranscoder;
  ASSIGN_OR_RETURN(manifest->apply_b_dec_to_input,
                   model::BoolOr(cfg, "apply_b_dec_to_input", !transcoder));
  if (transcoder && manifest->apply_b_dec_to_input) {
    return Invalid(
        "apply_b_dec_to_input is true in a transcoder: false is accepted");
  }
  ASSIGN_OR_RETURN(const std::string normalize,
                   model::StringOr(cfg, "normalize_activations", "none"));
  bool known = false;
  for (const auto& entry : kNormalizations) {
    if (normalize != entry.name) continue;
    manifest->normalize = entry.normalize;
    known = true;
  }
  if (!known) {
    return absl::UnimplementedError(absl::StrCat("normalize_activations is \"",
                                                 normalize, "\": accepted are ",
                                                 Names(kNormalizations)));
  }
  if (manifest->normalize == Normalize::kLayerNorm && manifest->d_in < 2) {
    return Invalid("normalize_activations is \"layer_norm\" with d_in 1");
  }
  ASSIGN_OR_RETURN(manifest->norm_scaling_factor,
                   model::DoubleOr(cfg, "norm_scaling_factor", 0));
  if (!(manifest->norm_scaling_factor >= 0) ||
      std::isinf(manifest->norm_scaling_factor)) {
    return Invalid(absl::StrCat("norm_scaling_factor is ",
                                manifest->norm_scaling_factor,
                                ": a positive number is accepted"));
  }
  if (manifest->normalize != Normalize::kExpectedAverageOnlyIn) {
    manifest->norm_scaling_factor = 0;
  }
  ASSIGN_OR_RETURN(manifest->finetuning_scaling_factor,
                   model::BoolOr(cfg, "finetuning_scaling_factor", false));
  return absl::OkStatus();
}

absl::Status ReadHooks(const Json& cfg, const Overrides& overrides,
                       const model::ModelConfig& config, Manifest* manifest) {
  const auto head = cfg.find("hook_head_index");
  if (head != cfg.end() && !head->is_null()) {
    return absl::UnimplementedError(
        absl::StrCat("hook_head_index is ", head->dump(),
                     ": only dictionaries of all heads are served (null)"));
  }
  ASSIGN_OR_RETURN(std::string in, model::StringOr(cfg, "hook_name", ""));
  ASSIGN_OR_RETURN(std::string out, model::StringOr(cfg, "hook_name_out", ""));
  if (overrides.hook_in.has_value()) in = *overrides.hook_in;
  if (overrides.hook_out.has_value()) {
    out = *overrides.hook_out;
  } else if (manifest->kind == Kind::kSae) {
    out.clear();
  }
  ASSIGN_OR_RETURN(const HookBinding binding,
                   BindHooks(manifest->kind, in, out, overrides.tap, config));
  manifest->hook_in = binding.in;
  manifest->hook_out = binding.out;
  manifest->hook_in_name = binding.in_name;
  manifest->hook_out_name = binding.out_name;
  manifest->tap = binding.tap;

  ASSIGN_OR_RETURN(const std::string reshape,
                   model::StringOr(cfg, "reshape_activations", "none"));
  if (reshape != "none" && reshape != "hook_z") {
    return Invalid(absl::StrCat("reshape_activations is \"", reshape,
                                "\": \"none\" and \"hook_z\" are accepted"));
  }
  manifest->reshape_hook_z = reshape == "hook_z";
  if (manifest->reshape_hook_z && binding.in.kind != model::HookKind::kZ) {
    return Invalid(absl::StrCat("reshape_activations is \"hook_z\" but ",
                                "hook_name is ", binding.in_name));
  }
  ASSIGN_OR_RETURN(const int64_t in_width, HookWidth(binding.in, config));
  if (in_width != manifest->d_in) {
    return Invalid(absl::StrCat("d_in is ", manifest->d_in, " but ",
                                model::HookName(binding.in), " of this model ",
                                "has ", in_width, " values"));
  }
  ASSIGN_OR_RETURN(const int64_t out_width, HookWidth(binding.out, config));
  if (out_width != manifest->d_out) {
    return Invalid(absl::StrCat("d_out is ", manifest->d_out, " but ",
                                model::HookName(binding.out), " of this model ",
                                "has ", out_width, " values"));
  }
  return absl::OkStatus();
}

absl::Status ReadModelUse(const Json& cfg, const Overrides& overrides,
                          const model::ModelConfig& config,
                          Manifest* manifest) {
  ASSIGN_OR_RETURN(manifest->declared_model_name,
                   model::StringOr(cfg, "model_name", ""));
  ASSIGN_OR_RETURN(manifest->context_size,
                   model::IntOr(cfg, "context_size", 0));
  if (manifest->context_size < 0) {
    return Invalid(absl::StrCat("context_size is ", manifest->context_size,
                                ": a positive number is accepted"));
  }
  ASSIGN_OR_RETURN(const bool randomized,
                   model::BoolOr(cfg, "randomize_llm_weights", false));
  if (randomized) {
    return absl::UnimplementedError(
        "randomize_llm_weights is true: the model this was trained on is not "
        "the served one");
  }
  const auto declared = cfg.find("prepend_bos");
  manifest->declares_prepend_bos =
      overrides.prepend_bos.has_value() ||
      (declared != cfg.end() && !declared->is_null());
  ASSIGN_OR_RETURN(
      manifest->prepend_bos,
      model::BoolOr(cfg, "prepend_bos", config.default_prepend_bos));
  if (overrides.prepend_bos.has_value()) {
    manifest->prepend_bos = *overrides.prepend_bos;
  }
  const auto kwargs = cfg.find("model_from_pretrained_kwargs");
  if (kwargs != cfg.end() && kwargs->is_object()) {
    ASSIGN_OR_RETURN(const bool centred,
                     model::BoolOr(*kwargs, "center_writing_weights", false));
    ASSIGN_OR_RETURN(const bool value_biases,
                     model::BoolOr(*kwargs, "fold_value_biases", false));
    if (centred || value_biases) {
      manifest->processing = model::Processing::kFolded;
    }
  }
  if (overrides.processing.has_value()) {
    manifest->processing = *overrides.processing;
  }
  return absl::OkStatus();
}

absl::Status ApplyOverrides(const Overrides& overrides,
                            const model::ModelConfig& config,
                            Manifest* manifest) {
  if (overrides.dtype != at::kFloat && overrides.dtype != at::kBFloat16) {
    return Invalid(absl::StrCat("dtype is ", at::toString(overrides.dtype),
                                ": FLOAT32 and BFLOAT16 are accepted"));
  }
  manifest->dtype = overrides.dtype;
  manifest->fold_w_dec_norm = overrides.fold_w_dec_norm;
  const bool selects_by_size =
      manifest->architecture == Architecture::kMatchingPursuit ||
      (manifest->architecture == Architecture::kTopK &&
       !manifest->rescale_acts_by_decoder_norm);
  if (overrides.fold_w_dec_norm && selects_by_size) {
    return Invalid(absl::StrCat(
        "fold_w_dec_norm is true but ", manifest->architecture_name,
        " would then select other latents: it is accepted for ",
        "rectifying architectures and for topk with ",
        "rescale_acts_by_decoder_norm"));
  }
  manifest->mlp_source = overrides.mlp_source;
  if (overrides.mlp_source == MlpSource::kFile) {
    if (manifest->kind != Kind::kPair) {
      return Invalid("mlp_source is FILE: it is accepted for pairs");
    }
    if (config.gated_mlp) {
      return Invalid(
          "mlp_source is FILE: a pair's file holds no gated MLP, which this "
          "model has");
    }
  }
  manifest->expected_l0 = overrides.expected_l0;
  manifest->expected_fvu = overrides.expected_fvu;
  return absl::OkStatus();
}

std::string Fingerprint(const Manifest& m) {
  const auto hex = [](double value) {
    return absl::StrCat(
        absl::Hex(absl::bit_cast<uint64_t>(value == 0 ? 0.0 : value)));
  };
  return absl::StrCat(
      "manifest/1;kind=", static_cast<int>(m.kind),
      ";architecture=", m.architecture_name, ";d=", m.d_in, ",", m.d_out, ",",
      m.d_sae, ";k=", m.k, ";rescale=", m.rescale_acts_by_decoder_norm,
      ";pursuit=", hex(m.residual_threshold), ",", m.max_iterations, ",",
      m.stop_on_duplicate_support, ";b_dec=", m.apply_b_dec_to_input,
      ";normalize=", NormalizeName(m.normalize), ",",
      hex(m.norm_scaling_factor), ";finetuning=", m.finetuning_scaling_factor,
      ";z=", m.reshape_hook_z, ";in=", model::HookName(m.hook_in),
      ";out=", model::HookName(m.hook_out), ";tap=", static_cast<int>(m.tap),
      ";processing=", static_cast<int>(m.processing), ";bos=", m.prepend_bos,
      m.declares_prepend_bos, ";context=", m.context_size,
      ";dtype=", at::toString(m.dtype), ";fold=", m.fold_w_dec_norm,
      ";mlp=", static_cast<int>(m.mlp_source));
}

}  // namespace

const char* NormalizeName(Normalize normalize) {
  for (const auto& entry : kNormalizations) {
    if (entry.normalize == normalize) return entry.name;
  }
  return "";
}

absl::StatusOr<Manifest> ParseManifest(const Json& cfg,
                                       const Overrides& overrides,
                                       const model::ModelConfig& config) {
  ASSIGN_OR_RETURN(const Json current, ToCurrentGeneration(cfg));
  Manifest manifest;
  RETURN_IF_ERROR(ReadArchitecture(current, &manifest));
  RETURN_IF_ERROR(ReadSizes(current, &manifest));
  RETURN_IF_ERROR(ReadMatchingPursuit(current, &manifest));
  RETURN_IF_ERROR(ReadInputTreatment(current, &manifest));
  RETURN_IF_ERROR(ReadHooks(current, overrides, config, &manifest));
  RETURN_IF_ERROR(ReadModelUse(current, overrides, config, &manifest));
  RETURN_IF_ERROR(ApplyOverrides(overrides, config, &manifest));
  manifest.fingerprint = Fingerprint(manifest);
  return manifest;
}

}  // namespace cupola::dictionary
