#include "server/service/means_conversion.h"

#include <utility>

#include "absl/time/time.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"
#include "server/service/tensor_conversion.h"

namespace cupola::service {
namespace {

void FillInfo(engine::MeanInfo info, v1::StoredMean* message) {
  message->set_name(std::move(info.key.name));
  message->set_hook(std::move(info.key.hook));
  message->set_processing(
      info.key.processing == model::Processing::kFolded ? v1::FOLDED : v1::RAW);
  message->mutable_shape()->Assign(info.shape.begin(), info.shape.end());
  message->set_positions(info.count);
  message->set_digest(info.digest.data(), info.digest.size());
  message->set_written_seconds(
      absl::ToDoubleSeconds(info.written - absl::UnixEpoch()));
}

}  // namespace

absl::StatusOr<engine::MeanActivationRequest> FromProto(
    v1::MeanActivationRequest request) {
  engine::MeanActivationRequest plain;
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  RETURN_IF_ERROR(CheckName(request.hook(), "hook"));
  RETURN_IF_ERROR(TakeQuestion(&request, &plain));
  plain.model = std::move(*request.mutable_model());
  plain.hook = std::move(*request.mutable_hook());
  plain.name = std::move(*request.mutable_name());
  return plain;
}

absl::StatusOr<engine::ListMeansRequest> FromProto(
    v1::ListMeansRequest request) {
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  return engine::ListMeansRequest{std::move(*request.mutable_model())};
}

absl::StatusOr<engine::DeleteMeanRequest> FromProto(
    v1::DeleteMeanRequest request) {
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  RETURN_IF_ERROR(CheckName(request.name(), "name"));
  RETURN_IF_ERROR(CheckName(request.hook(), "hook"));
  ASSIGN_OR_RETURN(const auto processing,
                   ProcessingFromProto(request.processing(), "processing"));
  return engine::DeleteMeanRequest{
      std::move(*request.mutable_model()), std::move(*request.mutable_name()),
      std::move(*request.mutable_hook()),
      processing.value_or(model::Processing::kRaw)};
}

StreamedAnswer<v1::MeanActivationResponse> ToProto(
    engine::MeanActivationAnswer answer, double total_seconds) {
  StreamedAnswer<v1::MeanActivationResponse> streamed;
  v1::MeanActivationResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.mean), header->mutable_mean());
  FillInfo(std::move(answer.info), header->mutable_stored());
  return Finish(std::move(streamed), &tensors, answer.provenance,
                total_seconds);
}

v1::ListMeansResponse ToProto(engine::ListMeansAnswer answer) {
  v1::ListMeansResponse response;
  for (engine::MeanInfo& info : answer.means) {
    FillInfo(std::move(info), response.add_means());
  }
  return response;
}

v1::DeleteMeanResponse ToProto(engine::DeleteMeanAnswer) { return {}; }

}  // namespace cupola::service
