#ifndef CUPOLA_SERVER_SERVICE_ATTRIBUTION_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_ATTRIBUTION_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/attribution.pb.h"
#include "cupola/v1/quality.pb.h"
#include "server/engine/attribution_requests.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/attribution.proto and quality.proto <-> plain structs; see
// request_conversion.h and answer_conversion.h.

namespace cupola::service {

// INVALID_ARGUMENT: none of the levels.
absl::StatusOr<analysis::ComponentLevel> ToLevel(v1::ComponentLevel level);

absl::StatusOr<engine::AttributeRequest> FromProto(
    v1::AttributeRequest request);
absl::StatusOr<engine::LogitLensRequest> FromProto(
    v1::LogitLensRequest request);
absl::StatusOr<engine::QualityRequest> FromProto(v1::QualityRequest request);

StreamedAnswer<v1::AttributeResponse> ToProto(engine::AttributeAnswer answer,
                                              double total_seconds);
StreamedAnswer<v1::LogitLensResponse> ToProto(engine::LogitLensAnswer answer,
                                              double total_seconds);
StreamedAnswer<v1::QualityResponse> ToProto(engine::QualityAnswer answer,
                                            double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ATTRIBUTION_CONVERSION_H_
