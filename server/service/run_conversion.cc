#include "server/service/run_conversion.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"
#include "server/service/tensor_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::Change;

// A value of any rank, as one row of numbers.
absl::Status TakeValue(v1::Tensor* tensor, const std::string& field,
                       engine::Array* value) {
  const int64_t count =
      static_cast<int64_t>(tensor->data().size() / sizeof(float));
  int64_t product = 1;
  for (int64_t size : tensor->shape()) {
    if (size < 0 || (size > 0 && product > count / size)) product = -1;
    if (product < 0) break;
    product *= size;
  }
  if (tensor->dtype() != v1::FLOAT32 || product != count || count == 0 ||
      tensor->data().size() % sizeof(float) != 0) {
    return InvalidArgumentError(
        StrCat(field, ": ", tensor->data().size(),
               " bytes that do not match its shape; accepted: FLOAT32, at "
               "least one number"));
  }
  *value = {
      storage::DType::kFloat32, {count}, std::move(*tensor->mutable_data())};
  return absl::OkStatus();
}

template <typename Values>
void TakeLatents(const Values& values, engine::InterventionRequest* plain) {
  for (const v1::Intervention::LatentValue& entry : values) {
    plain->latents.push_back(entry.latent());
    plain->values.push_back(entry.value());
  }
}

absl::Status TakePatch(v1::Intervention::Patch* patch, size_t prompts,
                       const std::string& field,
                       engine::InterventionRequest* plain) {
  auto source = TakePrompts(patch->mutable_source());
  if (!source.ok()) {
    return absl::Status(source.status().code(),
                        StrCat(field, ".source: ", source.status().message()));
  }
  plain->source = *std::move(source);
  // One source stands for all prompts.
  const size_t lists = patch->source_positions().has_per_prompt()
                           ? prompts
                           : plain->source.prompts.size();
  auto positions = ToPositions(patch->source_positions(), lists);
  if (!positions.ok()) {
    return absl::Status(
        positions.status().code(),
        StrCat(field, ".source_positions: ", positions.status().message()));
  }
  plain->source_positions = *std::move(positions);
  return absl::OkStatus();
}

absl::Status TakeChange(v1::Intervention* message, size_t prompts,
                        const std::string& field,
                        engine::InterventionRequest* plain) {
  switch (message->change_case()) {
    case v1::Intervention::kZero:
      plain->change = Change::kZero;
      return absl::OkStatus();
    case v1::Intervention::kSet:
      plain->change = Change::kSet;
      return TakeValue(message->mutable_set()->mutable_value(),
                       field + ".value", &plain->value);
    case v1::Intervention::kAdd:
      plain->change = Change::kAdd;
      if (message->add().has_scale()) plain->factor = message->add().scale();
      return TakeValue(message->mutable_add()->mutable_value(),
                       field + ".value", &plain->value);
    case v1::Intervention::kScale:
      plain->change = Change::kScale;
      plain->factor = message->scale().factor();
      return absl::OkStatus();
    case v1::Intervention::kProjectOut:
      plain->change = Change::kProjectOut;
      return TakeValue(message->mutable_project_out()->mutable_value(),
                       field + ".value", &plain->value);
    case v1::Intervention::kPatch:
      plain->change = Change::kPatch;
      return TakePatch(message->mutable_patch(), prompts, field, plain);
    case v1::Intervention::kSubtractLatents:
      plain->change = Change::kSubtractLatents;
      plain->latents.assign(message->subtract_latents().latents().begin(),
                            message->subtract_latents().latents().end());
      return absl::OkStatus();
    case v1::Intervention::kSetLatents:
      plain->change = Change::kSetLatents;
      plain->keep_error = !message->set_latents().drop_error();
      TakeLatents(message->set_latents().latents(), plain);
      return absl::OkStatus();
    case v1::Intervention::kReconstruct:
      plain->change = Change::kReconstruct;
      TakeLatents(message->reconstruct().overrides(), plain);
      return absl::OkStatus();
    case v1::Intervention::CHANGE_NOT_SET:
      break;
  }
  return InvalidArgumentError(
      StrCat(field,
             ".change is unset; accepted: zero, set, add, scale, "
             "project_out, patch, subtract_latents, set_latents or "
             "reconstruct"));
}

absl::StatusOr<engine::InterventionRequest> TakeIntervention(
    v1::Intervention* message, size_t prompts, const std::string& field) {
  engine::InterventionRequest plain;
  RETURN_IF_ERROR(TakeChange(message, prompts, field, &plain));
  const bool latents = plain.change >= Change::kSubtractLatents;
  RETURN_IF_ERROR(latents
                      ? CheckName(message->dictionary(), field + ".dictionary")
                      : CheckName(message->hook(), field + ".hook"));
  if (latents ? !message->hook().empty() || !message->heads().empty() ||
                    !message->neurons().empty()
              : !message->dictionary().empty()) {
    return InvalidArgumentError(StrCat(
        field, latents ? ": hook, heads and neurons do not apply to latents"
                       : ".dictionary does not apply to a hook point"));
  }
  plain.hook = std::move(*message->mutable_hook());
  plain.dictionary = std::move(*message->mutable_dictionary());
  plain.heads.assign(message->heads().begin(), message->heads().end());
  plain.neurons.assign(message->neurons().begin(), message->neurons().end());
  auto positions = ToPositions(message->positions(), prompts);
  if (!positions.ok()) {
    return absl::Status(positions.status().code(),
                        StrCat(field, ".", positions.status().message()));
  }
  plain.positions = *std::move(positions);
  return plain;
}

std::vector<std::vector<uint32_t>> AnswersOf(
    const google::protobuf::RepeatedPtrField<v1::TokenIds>& answers) {
  std::vector<std::vector<uint32_t>> plain;
  for (const v1::TokenIds& list : answers) {
    plain.emplace_back(list.ids().begin(), list.ids().end());
  }
  return plain;
}

}  // namespace

absl::StatusOr<engine::RunRequest> FromProto(v1::RunRequest request) {
  engine::RunRequest plain;
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  plain.model = std::move(*request.mutable_model());
  ASSIGN_OR_RETURN(plain.prompts, TakePrompts(request.mutable_prompts()));
  const size_t prompts = plain.prompts.prompts.size();
  const bool several = request.sets_size() > 1;
  for (int s = 0; s < request.sets_size(); ++s) {
    std::vector<engine::InterventionRequest>& set = plain.sets.emplace_back();
    auto* messages = request.mutable_sets(s)->mutable_interventions();
    for (int i = 0; i < messages->size(); ++i) {
      const std::string field = several
                                    ? StrCat("interventions[", s, "][", i, "]")
                                    : StrCat("interventions[", i, "]");
      ASSIGN_OR_RETURN(engine::InterventionRequest intervention,
                       TakeIntervention(messages->Mutable(i), prompts, field));
      set.push_back(std::move(intervention));
    }
  }
  ASSIGN_OR_RETURN(plain.positions, ToPositions(request.positions(), prompts));
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  plain.output = request.output();
  plain.top_logits = request.top_logits();
  plain.answers = AnswersOf(request.answers());
  for (int i = 0; i < request.dictionaries_size(); ++i) {
    RETURN_IF_ERROR(
        CheckName(request.dictionaries(i), StrCat("dictionaries[", i, "]")));
    plain.dictionaries.push_back(std::move(*request.mutable_dictionaries(i)));
  }
  for (int i = 0; i < request.hooks_size(); ++i) {
    RETURN_IF_ERROR(CheckName(request.hooks(i), StrCat("hooks[", i, "]")));
    plain.hooks.push_back(std::move(*request.mutable_hooks(i)));
  }
  return plain;
}

absl::StatusOr<engine::AblateRequest> FromProto(v1::AblateRequest request) {
  engine::AblateRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  plain.dictionary = std::move(*request.mutable_dictionary());
  ASSIGN_OR_RETURN(plain.prompts, TakePrompts(request.mutable_prompts()));
  ASSIGN_OR_RETURN(plain.positions, ToPositions(request.position(),
                                                plain.prompts.prompts.size()));
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  switch (request.mode()) {
    case v1::AblateRequest::MODE_UNSPECIFIED:
    case v1::AblateRequest::SUBTRACT:
      break;
    case v1::AblateRequest::RECONSTRUCT:
      plain.mode = analysis::AblateMode::kReconstruct;
      break;
    default:
      return InvalidArgumentError(
          StrCat("mode is ", static_cast<int>(request.mode()),
                 "; accepted: SUBTRACT or RECONSTRUCT"));
  }
  plain.latents.assign(request.latents().begin(), request.latents().end());
  plain.answers = AnswersOf(request.answers());
  return plain;
}

absl::StatusOr<engine::AblationTableRequest> FromProto(
    v1::AblationTableRequest request) {
  engine::AblationTableRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  plain.dictionary = std::move(*request.mutable_dictionary());
  ASSIGN_OR_RETURN(plain.prompts, TakePrompts(request.mutable_prompts()));
  ASSIGN_OR_RETURN(plain.positions, ToPositions(request.position(),
                                                plain.prompts.prompts.size()));
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  const auto take = [](bool given, auto value, auto* to) {
    if (given) *to = value;
  };
  take(request.has_active_above(), request.active_above(), &plain.active_above);
  take(request.has_share_of_max(), request.share_of_max(), &plain.share_of_max);
  take(request.has_min_share(), request.min_share(), &plain.min_share);
  take(request.has_mean_prompts(), request.mean_prompts(), &plain.mean_prompts);
  take(request.has_max_latents(), request.max_latents(), &plain.max_latents);
  take(request.has_prompts_per_latent(), request.prompts_per_latent(),
       &plain.prompts_per_latent);
  return plain;
}

StreamedAnswer<v1::RunResponse> ToProto(engine::RunAnswer answer,
                                        double total_seconds) {
  StreamedAnswer<v1::RunResponse> streamed;
  v1::RunResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  for (auto& prompts : answer.variants) {
    v1::RunResponse::Variant* variant = header->add_variants();
    for (engine::RunAnswer::Shown& plain : prompts) {
      v1::RunResponse::Shown* shown = variant->add_prompts();
      tensors.Add(std::move(plain.loss), shown->mutable_loss());
      tensors.Add(std::move(plain.logprob), shown->mutable_logprob());
      tensors.Add(std::move(plain.rank), shown->mutable_rank());
      tensors.Add(std::move(plain.top_tokens), shown->mutable_top_tokens());
      tensors.Add(std::move(plain.top_logits), shown->mutable_top_logits());
      for (engine::SparseArrays& rows : plain.features) {
        v1::SparseRows* features = shown->add_features();
        tensors.Add(std::move(rows.indptr), features->mutable_indptr());
        tensors.Add(std::move(rows.indices), features->mutable_indices());
        tensors.Add(std::move(rows.values), features->mutable_values());
        features->set_columns(rows.columns);
      }
      for (engine::Array& values : plain.activations) {
        tensors.Add(std::move(values), shown->add_activations());
      }
    }
  }
  for (engine::Array& positions : answer.positions) {
    tensors.Add(std::move(positions), header->add_positions());
  }
  for (std::string& hook : answer.hooks) header->add_hooks(std::move(hook));
  streamed.pieces = tensors.Finish();
  FillProvenance(answer.provenance, total_seconds, streamed.pieces,
                 header->mutable_provenance());
  return streamed;
}

StreamedAnswer<v1::AblateResponse> ToProto(engine::AblateAnswer answer,
                                           double total_seconds) {
  StreamedAnswer<v1::AblateResponse> streamed;
  v1::AblateResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.prompt), header->mutable_prompt());
  tensors.Add(std::move(answer.latent), header->mutable_latent());
  tensors.Add(std::move(answer.activation), header->mutable_activation());
  tensors.Add(std::move(answer.loss), header->mutable_loss());
  tensors.Add(std::move(answer.logprob), header->mutable_logprob());
  tensors.Add(std::move(answer.rank), header->mutable_rank());
  tensors.Add(std::move(answer.base_loss), header->mutable_base_loss());
  tensors.Add(std::move(answer.base_logprob), header->mutable_base_logprob());
  tensors.Add(std::move(answer.base_rank), header->mutable_base_rank());
  tensors.Add(std::move(answer.position), header->mutable_position());
  streamed.pieces = tensors.Finish();
  FillProvenance(answer.provenance, total_seconds, streamed.pieces,
                 header->mutable_provenance());
  return streamed;
}

StreamedAnswer<v1::AblationTableResponse> ToProto(
    engine::AblationTableAnswer answer, double total_seconds) {
  StreamedAnswer<v1::AblationTableResponse> streamed;
  v1::AblationTableResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.latent), header->mutable_latent());
  tensors.Add(std::move(answer.loss_increase), header->mutable_loss_increase());
  tensors.Add(std::move(answer.loss_increase_encoded),
              header->mutable_loss_increase_encoded());
  tensors.Add(std::move(answer.mean_activation),
              header->mutable_mean_activation());
  tensors.Add(std::move(answer.share_active), header->mutable_share_active());
  tensors.Add(std::move(answer.prompts), header->mutable_prompts());
  streamed.pieces = tensors.Finish();
  FillProvenance(answer.provenance, total_seconds, streamed.pieces,
                 header->mutable_provenance());
  return streamed;
}

}  // namespace cupola::service
