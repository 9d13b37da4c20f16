#ifndef CUPOLA_SERVER_SERVICE_COACTIVATION_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_COACTIVATION_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/jobs.pb.h"
#include "server/engine/coactivation_job.h"
#include "server/engine/jobs.h"
#include "server/service/answer_conversion.h"

// The co-activations of proto/cupola/v1/jobs.proto <-> plain structs; see
// request_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::CoactivationRequest> FromProto(
    v1::CoactivationRequest request);
absl::StatusOr<engine::CoactivationQuery> FromProto(
    const v1::GetCoactivationRequest& request);

StreamedAnswer<v1::GetCoactivationResponse> ToProto(
    engine::CoactivationAnswer answer, const engine::JobInfo& job);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_COACTIVATION_CONVERSION_H_
