#ifndef CUPOLA_SERVER_SERVICE_PROMPT_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_PROMPT_CONVERSION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cupola/v1/common.pb.h"
#include "cupola/v1/tensor.pb.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "server/engine/requests.h"
#include "server/model/status_macros.h"

// The parts that requests have in common, Protobuf -> plain structs. Errors are
// request_conversion.h's: INVALID_ARGUMENT naming the field, its value and what
// is accepted. What is taken is moved out of the message.

namespace cupola::service {

inline constexpr int kMaxPrompts = 1 << 16;

// An empty name is refused.
absl::Status CheckName(const std::string& name, absl::string_view field);

// A list of names, none of them empty; the list itself may be.
absl::StatusOr<std::vector<std::string>> TakeNames(
    google::protobuf::RepeatedPtrField<std::string>* names,
    absl::string_view field);

std::vector<int64_t> ToIndices(
    const google::protobuf::RepeatedField<uint32_t>& values);

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

// A request's rows instead of prompts: FLOAT32 [n, d_in], n >= 1, finite.
absl::StatusOr<engine::Array> TakeInputs(v1::Tensor* inputs);

// INVALID_ARGUMENT: positions beside what is no prompt; `source` names it.
absl::Status RefusePositions(bool has_positions, absl::string_view source);

// What most requests ask about: their prompts, and the positions (or the one
// position of each prompt) there.
template <typename Message, typename Plain>
absl::Status TakeSelection(Message* request, Plain* plain) {
  ASSIGN_OR_RETURN(engine::Prompts prompts,
                   TakePrompts(request->mutable_prompts()));
  const v1::Positions* positions;
  if constexpr (requires { request->positions(); }) {
    positions = &request->positions();
  } else {
    positions = &request->position();
  }
  ASSIGN_OR_RETURN(plain->positions,
                   ToPositions(*positions, prompts.prompts.size()));
  plain->prompts = std::move(prompts);
  return absl::OkStatus();
}

// The same and the processing.
template <typename Message, typename Plain>
absl::Status TakeQuestion(Message* request, Plain* plain) {
  RETURN_IF_ERROR(TakeSelection(request, plain));
  ASSIGN_OR_RETURN(plain->processing,
                   ProcessingFromProto(request->processing(), "processing"));
  return absl::OkStatus();
}

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_PROMPT_CONVERSION_H_
