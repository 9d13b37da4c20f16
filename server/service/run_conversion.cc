#include "server/service/run_conversion.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/mean_store.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"
#include "server/service/tensor_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::Change;

// The value of a Set, Add or ProjectOut, of any rank, or a stored mean's name.
template <typename Message>
absl::Status TakeValue(Message* message, const std::string& field,
                       engine::InterventionRequest* plain) {
  const v1::Tensor& tensor = message->value();
  if (!message->mean().empty()) {
    if (message->has_value()) {
      return InvalidArgumentError(
          StrCat(field,
                 ": both numbers and the name of a mean; accepted: one "
                 "of them"));
    }
    return engine::MeanStore::CheckName(
        plain->mean = std::move(*message->mutable_mean()), field);
  }
  std::vector<int64_t> shape(tensor.shape().begin(), tensor.shape().end());
  const std::optional<int64_t> bytes =
      storage::ByteSize(storage::DType::kFloat32, shape);
  if (tensor.dtype() != v1::FLOAT32 || tensor.data().empty() ||
      bytes != static_cast<int64_t>(tensor.data().size())) {
    return InvalidArgumentError(
        StrCat(field, ": ", tensor.data().size(),
               " bytes that do not match its shape; accepted: FLOAT32, at "
               "least one number, or the name of a stored mean"));
  }
  plain->value = {storage::DType::kFloat32, std::move(shape),
                  std::move(*message->mutable_value()->mutable_data())};
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
      return TakeValue(message->mutable_set(), field + ".value", plain);
    case v1::Intervention::kAdd:
      plain->change = Change::kAdd;
      if (message->add().has_scale()) plain->factor = message->add().scale();
      return TakeValue(message->mutable_add(), field + ".value", plain);
    case v1::Intervention::kScale:
      plain->change = Change::kScale;
      plain->factor = message->scale().factor();
      return absl::OkStatus();
    case v1::Intervention::kProjectOut:
      plain->change = Change::kProjectOut;
      return TakeValue(message->mutable_project_out(), field + ".value", plain);
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

std::vector<std::vector<uint32_t>> AnswersOf(
    const google::protobuf::RepeatedPtrField<v1::TokenIds>& answers) {
  std::vector<std::vector<uint32_t>> plain;
  for (const v1::TokenIds& list : answers) {
    plain.emplace_back(list.ids().begin(), list.ids().end());
  }
  return plain;
}

analysis::BoostOptions ToBoosts(const v1::RunRequest::Boosts& boosts) {
  analysis::BoostOptions plain;
  if (boosts.has_top()) plain.top = boosts.top();
  if (boosts.has_min_logprob()) plain.min_logprob = boosts.min_logprob();
  plain.tokens = ToIndices(boosts.tokens());
  return plain;
}

}  // namespace

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
  switch (message->scope()) {
    case v1::Intervention::PROMPT:
      plain.scope = engine::Scope::kPrompt;
      break;
    case v1::Intervention::GENERATED:
      plain.scope = engine::Scope::kGenerated;
      break;
    case v1::Intervention::SCOPE_UNSPECIFIED:
    case v1::Intervention::ALL:
      break;
    default:
      return InvalidArgumentError(
          StrCat(field, ".scope is ", static_cast<int>(message->scope()),
                 "; accepted: ALL, PROMPT, GENERATED or unset"));
  }
  return plain;
}

absl::StatusOr<engine::RunRequest> FromProto(v1::RunRequest request) {
  engine::RunRequest plain;
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  plain.model = std::move(*request.mutable_model());
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
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
      if (intervention.scope == engine::Scope::kGenerated) {
        return InvalidArgumentError(
            StrCat(field,
                   ".scope: nothing is generated here; accepted: ALL or "
                   "PROMPT"));
      }
      set.push_back(std::move(intervention));
    }
  }
  plain.output = request.output();
  plain.top_logits = request.top_logits();
  plain.answers = AnswersOf(request.answers());
  ASSIGN_OR_RETURN(plain.dictionaries,
                   TakeNames(request.mutable_dictionaries(), "dictionaries"));
  ASSIGN_OR_RETURN(plain.hooks, TakeNames(request.mutable_hooks(), "hooks"));
  plain.mean_loss = request.mean_loss();
  if (request.has_boosts()) plain.boosts = ToBoosts(request.boosts());
  return plain;
}

absl::StatusOr<engine::AblateRequest> FromProto(v1::AblateRequest request) {
  engine::AblateRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  plain.dictionary = std::move(*request.mutable_dictionary());
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
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
  plain.together = request.together();
  plain.later = request.later();
  for (const v1::AblateRequest::Target& target : request.targets()) {
    plain.targets.push_back(
        {target.prompt(), target.position(), target.latent()});
  }
  return plain;
}

absl::StatusOr<engine::AblationTableRequest> FromProto(
    v1::AblationTableRequest request) {
  engine::AblationTableRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  plain.dictionary = std::move(*request.mutable_dictionary());
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
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
  if (request.has_ablate_with_bos()) {
    plain.ablate_with_bos = request.ablate_with_bos();
  }
  return plain;
}

StreamedAnswer<v1::RunResponse> ToProto(engine::RunAnswer answer,
                                        double total_seconds) {
  StreamedAnswer<v1::RunResponse> streamed;
  v1::RunResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  header->set_variants(answer.variants);
  tensors.Add(std::move(answer.loss), header->mutable_loss());
  tensors.Add(std::move(answer.logprob), header->mutable_logprob());
  tensors.Add(std::move(answer.rank), header->mutable_rank());
  tensors.Add(std::move(answer.top_tokens), header->mutable_top_tokens());
  tensors.Add(std::move(answer.top_logits), header->mutable_top_logits());
  for (engine::SparseArrays& rows : answer.features) {
    AddRows(std::move(rows), header->add_features(), &tensors);
  }
  for (engine::RunAnswer::Values& plain : answer.activations) {
    v1::RunResponse::Values* values = header->add_activations();
    values->set_hook(std::move(plain.hook));
    values->mutable_shape()->Assign(plain.shape.begin(), plain.shape.end());
    tensors.Add(std::move(plain.values), values->mutable_values());
  }
  if (answer.boosts.has_value()) {
    analysis::BoostTable& boosts = *answer.boosts;
    tensors.Add(std::move(boosts.boosted_tokens),
                header->mutable_boosted_tokens());
    tensors.Add(std::move(boosts.boost), header->mutable_boost());
    tensors.Add(std::move(boosts.deboosted_tokens),
                header->mutable_deboosted_tokens());
    tensors.Add(std::move(boosts.deboost), header->mutable_deboost());
  }
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
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
  tensors.Add(std::move(answer.place), header->mutable_place());
  if (answer.later) {
    tensors.Add(std::move(answer.later_loss), header->mutable_later_loss());
    tensors.Add(std::move(answer.losses), header->mutable_losses());
    tensors.Add(std::move(answer.base_later_loss),
                header->mutable_base_later_loss());
    tensors.Add(std::move(answer.base_losses), header->mutable_base_losses());
  }
  return Finish(std::move(streamed), &tensors, answer.provenance,
                total_seconds);
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
  return Finish(std::move(streamed), &tensors, answer.provenance,
                total_seconds);
}

}  // namespace cupola::service
