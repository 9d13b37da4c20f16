#include "server/service/catalog_conversion.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

constexpr size_t kMaxName = 128;

// Names go into requests, logs and metrics.
absl::Status CheckEntryName(const std::string& name, absl::string_view field) {
  const bool valid = !name.empty() && name.size() <= kMaxName &&
                     std::all_of(name.begin(), name.end(), [](char c) {
                       return absl::ascii_isalnum(c) || c == '.' || c == '_' ||
                              c == '-' || c == '/';
                     });
  if (valid) return absl::OkStatus();
  return InvalidArgumentError(StrCat(field, " is \"", name.substr(0, kMaxName),
                                     "\"; accepted: 1 to ", kMaxName,
                                     " letters, digits and ._-/"));
}

absl::Status CheckPath(const std::string& path, const std::string& name) {
  if (!path.empty()) return absl::OkStatus();
  return InvalidArgumentError(
      StrCat("path of \"", name, "\" is empty; accepted: a folder"));
}

absl::Status CheckComputingType(v1::DType dtype, const std::string& name) {
  if (dtype == v1::DTYPE_UNSPECIFIED || dtype == v1::FLOAT32 ||
      dtype == v1::BFLOAT16) {
    return absl::OkStatus();
  }
  return InvalidArgumentError(StrCat("dtype of \"", name, "\" is ",
                                     v1::DType_Name(dtype),
                                     "; accepted: FLOAT32 or BFLOAT16"));
}

template <typename T>
bool IsKnownEnum(T value, T last) {
  return value >= 0 && value <= last;
}

v1::State ToProto(engine::State state) {
  switch (state) {
    case engine::State::kRegistered:
      return v1::REGISTERED;
    case engine::State::kLoading:
      return v1::LOADING;
    case engine::State::kResident:
      return v1::RESIDENT;
    case engine::State::kEvicted:
      return v1::EVICTED;
    case engine::State::kFailed:
      return v1::FAILED;
  }
  return v1::STATE_UNSPECIFIED;
}

v1::Processing ToProto(model::Processing processing) {
  return processing == model::Processing::kFolded ? v1::FOLDED : v1::RAW;
}

v1::DictionaryKind ToProto(dictionary::Kind kind) {
  switch (kind) {
    case dictionary::Kind::kSae:
      return v1::SAE;
    case dictionary::Kind::kTranscoder:
      return v1::TRANSCODER;
    case dictionary::Kind::kPair:
      return v1::PAIR;
  }
  return v1::DICTIONARY_KIND_UNSPECIFIED;
}

v1::DType ToProto(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? v1::BFLOAT16 : v1::FLOAT32;
}

void Fill(const std::optional<engine::Measurement>& measured,
          v1::Measurement* (v1::DictionaryInfo::*field)(),
          v1::DictionaryInfo* info) {
  if (!measured.has_value()) return;
  v1::Measurement* message = (info->*field)();
  message->set_tokens(measured->tokens);
  message->set_l0(measured->l0);
  message->set_fvu(measured->fvu);
  message->set_dead_latents(measured->dead_latents);
}

std::string DigestBytes(const storage::Digest& digest) {
  return std::string(digest.begin(), digest.end());
}

}  // namespace

absl::StatusOr<engine::ModelSpec> FromProto(const v1::ModelEntry& entry) {
  RETURN_IF_ERROR(CheckEntryName(entry.name(), "name of a model"));
  RETURN_IF_ERROR(CheckPath(entry.path(), entry.name()));
  RETURN_IF_ERROR(CheckComputingType(entry.dtype(), entry.name()));
  engine::ModelSpec spec;
  spec.name = entry.name();
  spec.path = entry.path();
  if (entry.dtype() == v1::BFLOAT16) spec.dtype = storage::DType::kBFloat16;
  spec.device = entry.device();
  return spec;
}

absl::StatusOr<engine::DictionarySpec> FromProto(
    const v1::DictionaryEntry& entry) {
  RETURN_IF_ERROR(CheckEntryName(entry.name(), "name of a dictionary"));
  RETURN_IF_ERROR(
      CheckEntryName(entry.model(), StrCat("model of \"", entry.name(), "\"")));
  RETURN_IF_ERROR(CheckPath(entry.path(), entry.name()));
  RETURN_IF_ERROR(CheckComputingType(entry.dtype(), entry.name()));
  if (!IsKnownEnum(entry.tap(), v1::POST_AFFINE) ||
      !IsKnownEnum(entry.mlp_source(), v1::FILE)) {
    return InvalidArgumentError(
        StrCat("\"", entry.name(), "\" has tap ", static_cast<int>(entry.tap()),
               " and mlp_source ", static_cast<int>(entry.mlp_source()),
               "; accepted: PRE_AFFINE or POST_AFFINE, MODEL or FILE"));
  }
  engine::DictionarySpec spec;
  spec.name = entry.name();
  spec.model = entry.model();
  spec.path = entry.path();
  dictionary::Overrides& overrides = spec.overrides;
  if (!entry.hook_in().empty()) overrides.hook_in = entry.hook_in();
  if (!entry.hook_out().empty()) overrides.hook_out = entry.hook_out();
  ASSIGN_OR_RETURN(
      overrides.processing,
      ProcessingFromProto(entry.processing(),
                          StrCat("processing of \"", entry.name(), "\"")));
  if (entry.tap() == v1::PRE_AFFINE) {
    overrides.tap = dictionary::Tap::kPreAffine;
  } else if (entry.tap() == v1::POST_AFFINE) {
    overrides.tap = dictionary::Tap::kPostAffine;
  }
  if (entry.has_prepend_bos()) overrides.prepend_bos = entry.prepend_bos();
  if (entry.dtype() == v1::BFLOAT16) overrides.dtype = at::kBFloat16;
  overrides.fold_w_dec_norm = entry.fold_w_dec_norm();
  if (entry.mlp_source() == v1::FILE) {
    overrides.mlp_source = dictionary::MlpSource::kFile;
  }
  if (entry.expect().has_l0()) overrides.expected_l0 = entry.expect().l0();
  if (entry.expect().has_fvu()) overrides.expected_fvu = entry.expect().fvu();
  return spec;
}

v1::ModelInfo ToProto(const engine::ModelStatus& status,
                      bool with_hook_points) {
  v1::ModelInfo info;
  info.set_name(status.spec.name);
  info.set_state(ToProto(status.state));
  info.set_failure(status.failure);
  info.set_dtype(static_cast<v1::DType>(status.spec.dtype));
  info.set_device(status.device);
  info.set_load_seconds(status.load_seconds);
  info.set_load_progress(status.load_progress);
  const model::ModelConfig& config = status.config;
  if (config.n_layers == 0) return info;
  info.set_family(config.family);
  info.set_digest(DigestBytes(status.digest));
  info.set_n_layers(config.n_layers);
  info.set_d_model(config.d_model);
  info.set_n_heads(config.n_heads);
  info.set_n_kv_heads(config.n_kv_heads);
  info.set_d_head(config.d_head);
  info.set_d_mlp(config.d_mlp);
  info.set_d_vocab(config.d_vocab);
  info.set_n_ctx(config.n_ctx);
  info.set_default_prepend_bos(config.default_prepend_bos);
  if (status.bos_token_id.has_value()) {
    info.set_bos_token_id(static_cast<uint32_t>(*status.bos_token_id));
  }
  for (const model::Processing processing : status.resident_processing) {
    info.add_resident_processing(ToProto(processing));
  }
  info.set_weight_bytes(status.weight_bytes);
  info.set_resident_bytes(status.resident_bytes);
  if (!with_hook_points) return info;
  for (const model::HookPoint& hook : model::AllHookPoints(config)) {
    v1::HookPointInfo* point = info.add_hook_points();
    point->set_name(model::HookName(hook));
    for (const int64_t extent : model::HookShape(hook, config)) {
      point->add_shape(extent);
    }
  }
  return info;
}

v1::DictionaryInfo ToProto(const engine::DictionaryStatus& status) {
  v1::DictionaryInfo info;
  info.set_name(status.spec.name);
  info.set_model(status.spec.model);
  info.set_state(ToProto(status.state));
  info.set_failure(status.failure);
  info.set_load_seconds(status.load_seconds);
  info.set_load_progress(status.load_progress);
  for (const std::string& warning : status.checked.warnings) {
    info.add_warnings(warning);
  }
  const dictionary::Manifest& manifest = status.manifest;
  if (manifest.d_sae == 0) return info;
  info.set_kind(ToProto(manifest.kind));
  info.set_architecture(manifest.architecture_name);
  info.set_d_in(manifest.d_in);
  info.set_d_out(manifest.d_out);
  info.set_d_sae(manifest.d_sae);
  info.set_k(manifest.k);
  info.set_hook_in(manifest.hook_in_name);
  info.set_hook_out(manifest.hook_out_name);
  info.set_tap(manifest.tap == dictionary::Tap::kPostAffine ? v1::POST_AFFINE
                                                            : v1::PRE_AFFINE);
  info.set_dtype(ToProto(manifest.dtype));
  info.set_processing(ToProto(manifest.processing));
  info.set_digest(DigestBytes(status.digest));
  info.set_normalize_activations(dictionary::NormalizeName(manifest.normalize));
  info.set_apply_b_dec_to_input(manifest.apply_b_dec_to_input);
  info.set_fold_w_dec_norm(manifest.fold_w_dec_norm);
  info.set_prepend_bos(manifest.prepend_bos);
  info.set_context_size(manifest.context_size);
  info.set_mlp_source(manifest.mlp_source == dictionary::MlpSource::kFile
                          ? v1::FILE
                          : v1::MODEL);
  info.set_has_mlp(manifest.has_mlp);
  info.set_resident_bytes(status.resident_bytes);
  Fill(status.checked.in, &v1::DictionaryInfo::mutable_measured, &info);
  Fill(status.checked.out, &v1::DictionaryInfo::mutable_measured_out, &info);
  if (manifest.expected_l0.has_value()) {
    info.mutable_expect()->set_l0(*manifest.expected_l0);
  }
  if (manifest.expected_fvu.has_value()) {
    info.mutable_expect()->set_fvu(*manifest.expected_fvu);
  }
  return info;
}

v1::CacheStatistics ToProto(const storage::ResultCacheStatistics& statistics,
                            const std::string& disabled_reason) {
  v1::CacheStatistics message;
  message.set_enabled(disabled_reason.empty());
  message.set_disabled_reason(disabled_reason);
  message.set_hits(statistics.hits);
  message.set_misses(statistics.misses);
  message.set_inserts(statistics.inserts);
  message.set_dropped_inserts(statistics.dropped_inserts);
  message.set_corrupt_records(statistics.corrupt_records);
  message.set_write_errors(statistics.write_errors);
  message.set_disk_bytes(statistics.disk_bytes);
  message.set_capacity_bytes(statistics.capacity_bytes);
  message.set_memory_bytes(statistics.memory_bytes);
  message.set_estimated_entries(statistics.estimated_entries);
  return message;
}

}  // namespace cupola::service
