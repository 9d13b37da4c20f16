#ifndef CUPOLA_SERVER_SERVICE_JACOBIAN_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_JACOBIAN_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/jacobian.pb.h"
#include "server/engine/jacobian_requests.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/jacobian.proto <-> plain structs; see request_conversion.h
// and answer_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::JacobianRequest> FromProto(v1::JacobianRequest request);

StreamedAnswer<v1::JacobianResponse> ToProto(engine::JacobianAnswer answer,
                                             double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_JACOBIAN_CONVERSION_H_
