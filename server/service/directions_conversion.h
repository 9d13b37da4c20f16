#ifndef CUPOLA_SERVER_SERVICE_DIRECTIONS_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_DIRECTIONS_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/directions.pb.h"
#include "server/engine/direction_requests.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/directions.proto <-> plain structs; see request_conversion.h
// and answer_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::DirectionAblationRequest> FromProto(
    v1::DirectionAblationRequest request);
absl::StatusOr<engine::SweepRequest> FromProto(v1::SweepRequest request);

StreamedAnswer<v1::DirectionAblationResponse> ToProto(
    engine::DirectionAblationAnswer answer, double total_seconds);
StreamedAnswer<v1::SweepResponse> ToProto(engine::SweepAnswer answer,
                                          double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_DIRECTIONS_CONVERSION_H_
