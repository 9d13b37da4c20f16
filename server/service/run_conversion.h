#ifndef CUPOLA_SERVER_SERVICE_RUN_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_RUN_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/run.pb.h"
#include "server/engine/ablation_table.h"
#include "server/engine/run_requests.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/run.proto <-> plain structs; see request_conversion.h and
// answer_conversion.h.

namespace cupola::service {

// One intervention of a request about `prompts` prompts; `field` names it in
// errors. Takes the message apart.
absl::StatusOr<engine::InterventionRequest> TakeIntervention(
    v1::Intervention* message, size_t prompts, const std::string& field);

absl::StatusOr<engine::RunRequest> FromProto(v1::RunRequest request);
absl::StatusOr<engine::AblateRequest> FromProto(v1::AblateRequest request);
absl::StatusOr<engine::AblationTableRequest> FromProto(
    v1::AblationTableRequest request);

StreamedAnswer<v1::RunResponse> ToProto(engine::RunAnswer answer,
                                        double total_seconds);
StreamedAnswer<v1::AblateResponse> ToProto(engine::AblateAnswer answer,
                                           double total_seconds);

StreamedAnswer<v1::AblationTableResponse> ToProto(
    engine::AblationTableAnswer answer, double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_RUN_CONVERSION_H_
