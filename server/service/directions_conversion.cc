#include "server/service/directions_conversion.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/bridge_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using Step = analysis::DirectionAblationOptions::Step;

// Given samples, or how they are drawn.
template <typename Message, typename Plain>
absl::Status TakeSamples(const Message& request, Plain* plain) {
  if (request.has_samples()) {
    const v1::PairSamples& samples = request.samples();
    if (samples.rows().empty()) {
      return InvalidArgumentError(
          "samples.rows is empty; accepted: at least one sample");
    }
    plain->rows = {samples.rows().begin(), samples.rows().end()};
    plain->in_latents = {samples.in_latents().begin(),
                         samples.in_latents().end()};
    plain->out_latents = {samples.out_latents().begin(),
                          samples.out_latents().end()};
    plain->deltas = {samples.deltas().begin(), samples.deltas().end()};
    return absl::OkStatus();
  }
  if (!request.has_draw()) {
    return InvalidArgumentError(
        "the request has no samples; accepted: samples or draw");
  }
  if (request.draw().per_token() == 0) {
    return InvalidArgumentError("draw.per_token is 0; accepted: at least 1");
  }
  plain->options.draw = {request.draw().per_token(), request.draw().seed()};
  return absl::OkStatus();
}

absl::Status CheckNumber(double value, absl::string_view field) {
  if (std::isfinite(value)) return absl::OkStatus();
  return InvalidArgumentError(
      StrCat(field, " is ", value, "; accepted: finite"));
}

absl::Status CheckTolerance(double value, absl::string_view field) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return InvalidArgumentError(
      StrCat(field, " is ", value, "; accepted: finite and > 0"));
}

}  // namespace

absl::StatusOr<engine::DirectionAblationRequest> FromProto(
    v1::DirectionAblationRequest request) {
  engine::DirectionAblationRequest plain;
  RETURN_IF_ERROR(TakeSamples(request, &plain));
  analysis::DirectionAblationOptions& options = plain.options;
  if (request.strength()) options.step = Step::kStrength;
  if (!plain.deltas.empty()) {
    if (request.strength()) {
      return InvalidArgumentError(
          "strength is set beside samples.deltas; accepted: one of them");
    }
    options.step = Step::kGiven;
  }
  if (request.has_on_line()) options.on_line = request.on_line();
  if (request.has_cluster_jacobian()) {
    options.cluster_jacobian = request.cluster_jacobian();
  }
  if (request.has_cluster_drop()) options.cluster_drop = request.cluster_drop();
  RETURN_IF_ERROR(CheckTolerance(options.on_line, "on_line"));
  RETURN_IF_ERROR(CheckNumber(options.cluster_jacobian, "cluster_jacobian"));
  RETURN_IF_ERROR(CheckNumber(options.cluster_drop, "cluster_drop"));
  RETURN_IF_ERROR(TakeBridge(&request, &plain));
  return plain;
}

absl::StatusOr<engine::SweepRequest> FromProto(v1::SweepRequest request) {
  engine::SweepRequest plain;
  RETURN_IF_ERROR(TakeSamples(request, &plain));
  if (!plain.deltas.empty()) {
    return InvalidArgumentError(
        "samples.deltas is set; accepted in a sweep: none, its grid says how "
        "far to move");
  }
  analysis::SweepOptions& options = plain.options;
  options.grid = {request.grid().begin(), request.grid().end()};
  if (request.points() > 0) options.points = request.points();
  if (request.points() > 0 && !options.grid.empty()) {
    return InvalidArgumentError(StrCat("points is ", request.points(),
                                       " beside grid; accepted: one of them"));
  }
  if (request.has_tolerance()) options.tolerance = request.tolerance();
  RETURN_IF_ERROR(CheckTolerance(options.tolerance, "tolerance"));
  options.published = request.published_classes();
  options.curves = request.curves();
  RETURN_IF_ERROR(TakeBridge(&request, &plain));
  return plain;
}

StreamedAnswer<v1::DirectionAblationResponse> ToProto(
    engine::DirectionAblationAnswer answer, double total_seconds) {
  StreamedAnswer<v1::DirectionAblationResponse> streamed;
  auto* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.row), header->mutable_row());
  tensors.Add(std::move(answer.in_latent), header->mutable_in_latent());
  tensors.Add(std::move(answer.out_latent), header->mutable_out_latent());
  tensors.Add(std::move(answer.delta), header->mutable_delta());
  tensors.Add(std::move(answer.before), header->mutable_before());
  tensors.Add(std::move(answer.after), header->mutable_after());
  tensors.Add(std::move(answer.jacobian), header->mutable_jacobian());
  tensors.Add(std::move(answer.kind), header->mutable_kind());
  header->set_skipped_share(answer.skipped_share);
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

StreamedAnswer<v1::SweepResponse> ToProto(engine::SweepAnswer answer,
                                          double total_seconds) {
  StreamedAnswer<v1::SweepResponse> streamed;
  auto* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.row), header->mutable_row());
  tensors.Add(std::move(answer.in_latent), header->mutable_in_latent());
  tensors.Add(std::move(answer.out_latent), header->mutable_out_latent());
  tensors.Add(std::move(answer.strength), header->mutable_strength());
  tensors.Add(std::move(answer.last), header->mutable_last());
  tensors.Add(std::move(answer.kind), header->mutable_kind());
  tensors.Add(std::move(answer.slope), header->mutable_slope());
  tensors.Add(std::move(answer.intercept), header->mutable_intercept());
  tensors.Add(std::move(answer.zero_first), header->mutable_zero_first());
  tensors.Add(std::move(answer.zero_last), header->mutable_zero_last());
  tensors.Add(std::move(answer.curves), header->mutable_curves());
  header->set_skipped_share(answer.skipped_share);
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

}  // namespace cupola::service
