#include "server/service/jacobian_conversion.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/bridge_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

absl::StatusOr<analysis::MlpInput> ToMlpInput(v1::MlpInput input) {
  switch (input) {
    case v1::MLP_INPUT_UNSPECIFIED:
    case v1::ORIGINAL:
      return analysis::MlpInput::kOriginal;
    case v1::RECONSTRUCTION:
      return analysis::MlpInput::kReconstruction;
    default:
      return InvalidArgumentError(
          StrCat("mlp_input is ", static_cast<int>(input),
                 "; accepted: ORIGINAL, RECONSTRUCTION or unset"));
  }
}

absl::StatusOr<analysis::LatentMask> ToMask(v1::LatentMask mask) {
  switch (mask) {
    case v1::LATENT_MASK_UNSPECIFIED:
    case v1::SLOTS:
      return analysis::LatentMask::kSlots;
    case v1::POSITIVE:
      return analysis::LatentMask::kPositive;
    default:
      return InvalidArgumentError(StrCat("mask is ", static_cast<int>(mask),
                                         "; accepted: SLOTS, POSITIVE or "
                                         "unset"));
  }
}

absl::StatusOr<bool> ToFrozen(v1::JacobianMode mode) {
  switch (mode) {
    case v1::JACOBIAN_MODE_UNSPECIFIED:
    case v1::FULL:
      return false;
    case v1::FROZEN:
      return true;
    default:
      return InvalidArgumentError(StrCat("mode is ", static_cast<int>(mode),
                                         "; accepted: FULL, FROZEN or unset"));
  }
}

absl::Status TakeSources(const v1::JacobianRequest& request,
                         engine::JacobianRequest* plain) {
  if (!request.has_source_positions()) return absl::OkStatus();
  const auto& sources = request.source_positions();
  if (!plain->prompts.has_value()) {
    return InvalidArgumentError(
        "source_positions does not apply to inputs; accepted: prompts");
  }
  if (sources.has_at() &&
      sources.at().selection_case() != v1::Positions::SELECTION_NOT_SET) {
    plain->source_rule = analysis::SourceRule::kGiven;
    auto positions = ToPositions(sources.at(), plain->prompts->prompts.size());
    if (!positions.ok()) {
      return InvalidArgumentError(
          StrCat("source_positions.at: ", positions.status().message()));
    }
    plain->source_positions = *std::move(positions);
    return absl::OkStatus();
  }
  if (!sources.all()) {
    return InvalidArgumentError(
        "source_positions names no rule; accepted: all = true, at with "
        "positions, or unset");
  }
  plain->source_rule = analysis::SourceRule::kAll;
  return absl::OkStatus();
}

absl::Status CheckMinAbs(float value, absl::string_view field) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return InvalidArgumentError(
      StrCat(field, " is ", value, "; accepted: finite and >= 0"));
}

}  // namespace

absl::StatusOr<engine::JacobianRequest> FromProto(v1::JacobianRequest request) {
  engine::JacobianRequest plain;
  analysis::JacobianOptions& options = plain.options;
  ASSIGN_OR_RETURN(options.mlp_input, ToMlpInput(request.mlp_input()));
  ASSIGN_OR_RETURN(options.mask, ToMask(request.mask()));
  RETURN_IF_ERROR(CheckMinAbs(request.min_abs(), "min_abs"));
  options.min_abs = request.min_abs();
  if (request.has_all_inputs()) {
    const auto& all = request.all_inputs();
    RETURN_IF_ERROR(CheckMinAbs(all.min_abs(), "all_inputs.min_abs"));
    if (request.min_abs() > 0) {
      return InvalidArgumentError(
          StrCat("min_abs is ", request.min_abs(),
                 " beside all_inputs; accepted: all_inputs.min_abs"));
    }
    options.all_inputs = true;
    options.min_abs = all.min_abs();
    options.top = all.top();
  }
  options.block = !request.without_block();
  if (request.without_block() &&
      (options.all_inputs || request.second_order())) {
    return InvalidArgumentError(
        "without_block is set beside all_inputs or second_order; accepted: "
        "neither of them");
  }
  options.second_order = request.second_order();
  options.mlp_output = request.mlp_output();
  options.gradients = request.gradients();
  ASSIGN_OR_RETURN(plain.frozen, ToFrozen(request.mode()));
  RETURN_IF_ERROR(TakeBridge(&request, &plain));
  RETURN_IF_ERROR(TakeSources(request, &plain));
  return plain;
}

StreamedAnswer<v1::JacobianResponse> ToProto(engine::JacobianAnswer answer,
                                             double total_seconds) {
  StreamedAnswer<v1::JacobianResponse> streamed;
  v1::JacobianResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.in_latents), header->mutable_in_latents());
  tensors.Add(std::move(answer.in_acts), header->mutable_in_acts());
  tensors.Add(std::move(answer.out_latents), header->mutable_out_latents());
  tensors.Add(std::move(answer.out_acts), header->mutable_out_acts());
  tensors.Add(std::move(answer.values), header->mutable_values());
  tensors.Add(std::move(answer.indptr), header->mutable_indptr());
  tensors.Add(std::move(answer.indices), header->mutable_indices());
  tensors.Add(std::move(answer.second_order), header->mutable_second_order());
  tensors.Add(std::move(answer.mlp_output), header->mutable_mlp_output());
  tensors.Add(std::move(answer.gradients), header->mutable_gradients());
  tensors.Add(std::move(answer.source_position),
              header->mutable_source_position());
  header->set_columns(answer.columns);
  header->set_output_dictionary(std::move(answer.output_dictionary));
  header->set_output_dictionary_digest(answer.output_digest.data(),
                                       answer.output_digest.size());
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

}  // namespace cupola::service
