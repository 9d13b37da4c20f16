#ifndef CUPOLA_SERVER_SERVICE_REQUEST_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_REQUEST_CONVERSION_H_

#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cupola/v1/analysis.pb.h"
#include "cupola/v1/common.pb.h"
#include "server/engine/requests.h"

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

inline constexpr int kMaxPrompts = 1 << 16;

absl::StatusOr<engine::TokenizeRequest> FromProto(v1::TokenizeRequest request);
absl::StatusOr<engine::ActivationsRequest> FromProto(
    v1::ActivationsRequest request);
absl::StatusOr<engine::FeaturesRequest> FromProto(v1::FeaturesRequest request);
absl::StatusOr<engine::ReconstructRequest> FromProto(
    v1::ReconstructRequest request);

// Unspecified: nothing, the default applies.
absl::StatusOr<std::optional<model::Processing>> ProcessingFromProto(
    v1::Processing processing, absl::string_view field);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_REQUEST_CONVERSION_H_
