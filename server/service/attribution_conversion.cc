#include "server/service/attribution_conversion.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/field_status.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"
#include "server/service/tensor_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::AttributionTarget;
using analysis::ComponentLevel;

std::vector<std::vector<int64_t>> ToLists(
    const google::protobuf::RepeatedPtrField<v1::TokenIds>& lists) {
  std::vector<std::vector<int64_t>> plain;
  for (const v1::TokenIds& list : lists) plain.push_back(ToIndices(list.ids()));
  return plain;
}

absl::Status TakeReference(v1::AttributeRequest::Latents* latents,
                           engine::AttributeRequest* plain) {
  if (!latents->has_reference()) {
    if (!latents->has_reference_positions()) return absl::OkStatus();
    return InvalidArgumentError(
        "latents.reference_positions is set without latents.reference");
  }
  if (latents->has_inactive()) {
    return InvalidArgumentError(
        "latents.inactive and latents.reference contradict; accepted: one of "
        "them");
  }
  auto prompts = TakePrompts(latents->mutable_reference());
  if (!prompts.ok()) {
    return engine::InField("latents.reference", prompts.status());
  }
  auto positions =
      ToPositions(latents->reference_positions(), prompts->prompts.size());
  if (!positions.ok()) {
    return engine::InField("latents.reference_positions", positions.status());
  }
  plain->reference = *std::move(prompts);
  plain->reference_positions = *std::move(positions);
  return absl::OkStatus();
}

absl::Status TakeTarget(v1::AttributeRequest* request,
                        engine::AttributeRequest* plain) {
  analysis::AttributionQuery* query = &plain->query;
  switch (request->target_case()) {
    case v1::AttributeRequest::kLogits:
      query->target = AttributionTarget::kTokens;
      plain->tokens = ToLists(request->logits().tokens());
      plain->incorrect = ToLists(request->logits().incorrect());
      query->gain = !request->logits().without_gain();
      if (plain->tokens.empty() || plain->tokens.front().empty()) {
        return InvalidArgumentError(
            "logits.tokens is empty; accepted: at least one token");
      }
      break;
    case v1::AttributeRequest::kLatents: {
      query->target = AttributionTarget::kLatents;
      query->latents = ToIndices(request->latents().latents());
      if (query->latents.empty()) {
        return InvalidArgumentError(
            "latents.latents is empty; accepted: at least one latent");
      }
      if (request->latents().has_inactive()) {
        ASSIGN_OR_RETURN(
            query->inactive,
            TakeArray(request->mutable_latents()->mutable_inactive(),
                      "latents.inactive", storage::DType::kFloat32, 2));
        RETURN_IF_ERROR(CheckFinite(query->inactive, "latents.inactive"));
      }
      RETURN_IF_ERROR(TakeReference(request->mutable_latents(), plain));
      break;
    }
    case v1::AttributeRequest::kVectors: {
      query->target = AttributionTarget::kVectors;
      ASSIGN_OR_RETURN(query->vectors,
                       TakeArray(request->mutable_vectors(), "vectors",
                                 storage::DType::kFloat32, 2));
      if (query->vectors.shape[0] == 0) {
        return InvalidArgumentError(
            "vectors has no row; accepted: at least one");
      }
      RETURN_IF_ERROR(CheckFinite(query->vectors, "vectors"));
      break;
    }
    case v1::AttributeRequest::TARGET_NOT_SET:
      query->target = AttributionTarget::kNone;
  }
  const bool own_scale = query->target == AttributionTarget::kTokens ||
                         query->target == AttributionTarget::kLatents;
  if (request->apply_norm() && own_scale) {
    return InvalidArgumentError(
        "apply_norm goes with vectors or no target; logits and latents have "
        "the scale of the norm that reads them");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ComponentLevel> ToLevel(v1::ComponentLevel level) {
  switch (level) {
    case v1::COMPONENT_LEVEL_UNSPECIFIED:
    case v1::LAYERS:
      return ComponentLevel::kLayers;
    case v1::HEADS:
      return ComponentLevel::kHeads;
    case v1::NEURONS:
      return ComponentLevel::kNeurons;
    default:
      return InvalidArgumentError(StrCat("level is ", static_cast<int>(level),
                                         "; accepted: LAYERS, HEADS, NEURONS "
                                         "or unset"));
  }
}

absl::StatusOr<engine::AttributeRequest> FromProto(
    v1::AttributeRequest request) {
  engine::AttributeRequest plain;
  if (request.dictionary().empty()) {
    RETURN_IF_ERROR(CheckName(request.model(), "model"));
  }
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
  RETURN_IF_ERROR(TakeTarget(&request, &plain));
  analysis::Decomposition& decomposition = plain.query.decomposition;
  ASSIGN_OR_RETURN(decomposition.level, ToLevel(request.level()));
  decomposition.layer = -1;
  if (request.has_layer()) {
    if (request.layer() > std::numeric_limits<int>::max()) {
      return InvalidArgumentError(
          StrCat("layer is ", request.layer(), "; accepted: 0 to n_layers"));
    }
    decomposition.layer = static_cast<int>(request.layer());
  }
  decomposition.mlp_input = request.mlp_input();
  plain.query.apply_norm = request.apply_norm();
  plain.query.mean = request.mean();
  ASSIGN_OR_RETURN(plain.splits, TakeNames(request.mutable_split_dictionaries(),
                                           "split_dictionaries"));
  plain.model = std::move(*request.mutable_model());
  plain.dictionary = std::move(*request.mutable_dictionary());
  return plain;
}

absl::StatusOr<engine::LogitLensRequest> FromProto(
    v1::LogitLensRequest request) {
  engine::LogitLensRequest plain;
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
  plain.model = std::move(*request.mutable_model());
  plain.tokens = ToIndices(request.tokens());
  plain.top = request.top();
  plain.mids = request.mids();
  return plain;
}

absl::StatusOr<engine::QualityRequest> FromProto(v1::QualityRequest request) {
  engine::QualityRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
  plain.dictionary = std::move(*request.mutable_dictionary());
  plain.score_every = request.score_every();
  return plain;
}

StreamedAnswer<v1::AttributeResponse> ToProto(engine::AttributeAnswer answer,
                                              double total_seconds) {
  StreamedAnswer<v1::AttributeResponse> streamed;
  v1::AttributeResponse::Header* header = streamed.first.mutable_header();
  for (std::string& component : answer.components) {
    header->add_components(std::move(component));
  }
  TensorCollector tensors;
  tensors.Add(std::move(answer.values), header->mutable_values());
  tensors.Add(std::move(answer.total), header->mutable_total());
  tensors.Add(std::move(answer.bias), header->mutable_bias());
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

StreamedAnswer<v1::LogitLensResponse> ToProto(engine::LogitLensAnswer answer,
                                              double total_seconds) {
  StreamedAnswer<v1::LogitLensResponse> streamed;
  v1::LogitLensResponse::Header* header = streamed.first.mutable_header();
  for (std::string& residual : answer.residuals) {
    header->add_residuals(std::move(residual));
  }
  TensorCollector tensors;
  tensors.Add(std::move(answer.top_tokens), header->mutable_top_tokens());
  tensors.Add(std::move(answer.top_logits), header->mutable_top_logits());
  tensors.Add(std::move(answer.logits), header->mutable_logits());
  tensors.Add(std::move(answer.logprobs), header->mutable_logprobs());
  tensors.Add(std::move(answer.ranks), header->mutable_ranks());
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

StreamedAnswer<v1::QualityResponse> ToProto(engine::QualityAnswer answer,
                                            double total_seconds) {
  StreamedAnswer<v1::QualityResponse> streamed;
  v1::QualityResponse::Header* header = streamed.first.mutable_header();
  const analysis::QualitySummary& summary = answer.summary;
  header->set_clean_loss(summary.clean_loss);
  header->set_zero_loss(summary.zero_loss);
  header->set_reconstruction_loss(summary.reconstruction_loss);
  header->set_loss_recovered(summary.loss_recovered);
  header->set_fvu(summary.fvu);
  header->set_mean_squared_error(summary.mean_squared_error);
  header->set_l0(summary.l0);
  TensorCollector tensors;
  tensors.Add(std::move(answer.losses), header->mutable_losses());
  tensors.Add(std::move(answer.loss_prompt), header->mutable_loss_prompt());
  tensors.Add(std::move(answer.loss_position), header->mutable_loss_position());
  tensors.Add(std::move(answer.squared_error), header->mutable_squared_error());
  tensors.Add(std::move(answer.l0), header->mutable_token_l0());
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

}  // namespace cupola::service
