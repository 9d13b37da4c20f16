#ifndef CUPOLA_SERVER_SERVICE_REQUEST_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_REQUEST_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/analysis.pb.h"
#include "server/engine/requests.h"
#include "server/service/prompt_conversion.h"

// Protobuf requests -> plain structs. Checks everything that can be checked
// without the catalog: missing and contradictory fields, numbers that do not
// fit, tensors whose data does not match their shape, rows that are not CSR.
// INVALID_ARGUMENT names the field, its value and what is accepted;
// RESOURCE_EXHAUSTED: more prompts than a request may hold, with both numbers.
// What needs a model or a dictionary (names, hook points, latents, positions,
// context length) is the engine's to check.
//
// Requests are taken apart: texts and tensors are moved, not copied.

namespace cupola::service {

absl::StatusOr<engine::TokenizeRequest> FromProto(v1::TokenizeRequest request);
absl::StatusOr<engine::ActivationsRequest> FromProto(
    v1::ActivationsRequest request);
absl::StatusOr<engine::FeaturesRequest> FromProto(v1::FeaturesRequest request);
absl::StatusOr<engine::ReconstructRequest> FromProto(
    v1::ReconstructRequest request);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_REQUEST_CONVERSION_H_
