#ifndef CUPOLA_SERVER_SERVICE_WEIGHTS_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_WEIGHTS_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/weights.pb.h"
#include "server/engine/weight_requests.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/weights.proto <-> plain structs; see request_conversion.h and
// answer_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::WeightRequest> FromProto(v1::WeightRequest request);
absl::StatusOr<engine::LatentWeightsRequest> FromProto(
    v1::LatentWeightsRequest request);

StreamedAnswer<v1::WeightResponse> ToProto(engine::WeightAnswer answer,
                                           double total_seconds);
StreamedAnswer<v1::LatentWeightsResponse> ToProto(
    engine::LatentWeightsAnswer answer, double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_WEIGHTS_CONVERSION_H_
