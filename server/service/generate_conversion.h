#ifndef CUPOLA_SERVER_SERVICE_GENERATE_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_GENERATE_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/generate.pb.h"
#include "server/engine/generate_requests.h"

// proto/cupola/v1/generate.proto <-> plain structs; see request_conversion.h
// and answer_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::GenerateRequest> FromProto(v1::GenerateRequest request);

void ToProto(engine::GeneratedPiece piece, v1::GenerateResponse::Token* token);
v1::GenerateResponse ToProto(engine::GenerateAnswer answer,
                             double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_GENERATE_CONVERSION_H_
