#ifndef CUPOLA_SERVER_SERVICE_PROMPT_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_PROMPT_CONVERSION_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cupola/v1/common.pb.h"
#include "server/engine/requests.h"

// The parts that requests have in common, Protobuf -> plain structs. Errors are
// request_conversion.h's: INVALID_ARGUMENT naming the field, its value and what
// is accepted. What is taken is moved out of the message.

namespace cupola::service {

inline constexpr int kMaxPrompts = 1 << 16;

// An empty name is refused.
absl::Status CheckName(const std::string& name, absl::string_view field);

// `accept_empty`: prompts without a character or token are not refused.
// RESOURCE_EXHAUSTED: more than kMaxPrompts.
absl::StatusOr<engine::Prompts> TakePrompts(v1::Prompts* prompts,
                                            bool accept_empty = false);

// `prompts`: how many lists a selection per prompt must have.
absl::StatusOr<engine::Positions> ToPositions(const v1::Positions& positions,
                                              size_t prompts);

// Unspecified: nothing, the default applies.
absl::StatusOr<std::optional<model::Processing>> ProcessingFromProto(
    v1::Processing processing, absl::string_view field);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_PROMPT_CONVERSION_H_
