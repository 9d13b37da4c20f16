#ifndef CUPOLA_SERVER_SERVICE_MEANS_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_MEANS_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/means.pb.h"
#include "server/engine/mean_requests.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/means.proto <-> plain structs. Errors are
// request_conversion.h's.

namespace cupola::service {

absl::StatusOr<engine::MeanActivationRequest> FromProto(
    v1::MeanActivationRequest request);
absl::StatusOr<engine::ListMeansRequest> FromProto(
    v1::ListMeansRequest request);
absl::StatusOr<engine::DeleteMeanRequest> FromProto(
    v1::DeleteMeanRequest request);

StreamedAnswer<v1::MeanActivationResponse> ToProto(
    engine::MeanActivationAnswer answer, double total_seconds);
v1::ListMeansResponse ToProto(engine::ListMeansAnswer answer);
v1::DeleteMeanResponse ToProto(engine::DeleteMeanAnswer answer);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_MEANS_CONVERSION_H_
