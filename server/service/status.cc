#include "server/service/status.h"

#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"

namespace cupola::service {

const char kRetryDelayPayload[] = "retry-delay-ms";

namespace {

// Cuts before a UTF-8 continuation byte's lead, so that the text stays valid.
std::string Shorten(absl::string_view text) {
  if (text.size() <= kMaxStatusMessage) return std::string(text);
  size_t end = kMaxStatusMessage;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return absl::StrCat(text.substr(0, end), "...");
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status,
                          grpc::ServerContextBase* context) {
  if (status.ok()) return grpc::Status::OK;
  const absl::optional<absl::Cord> payload =
      status.GetPayload(kRetryDelayPayload);
  int64_t milliseconds = 0;
  if (context != nullptr && payload.has_value() &&
      absl::SimpleAtoi(std::string(*payload), &milliseconds) &&
      milliseconds >= 0) {
    context->AddTrailingMetadata("grpc-retry-pushback-ms",
                                 absl::StrCat(milliseconds));
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      Shorten(status.message()));
}

const char* CodeName(grpc::StatusCode code) {
  static constexpr std::array<const char*, 17> kNames = {"OK",
                                                         "CANCELLED",
                                                         "UNKNOWN",
                                                         "INVALID_ARGUMENT",
                                                         "DEADLINE_EXCEEDED",
                                                         "NOT_FOUND",
                                                         "ALREADY_EXISTS",
                                                         "PERMISSION_DENIED",
                                                         "RESOURCE_EXHAUSTED",
                                                         "FAILED_PRECONDITION",
                                                         "ABORTED",
                                                         "OUT_OF_RANGE",
                                                         "UNIMPLEMENTED",
                                                         "INTERNAL",
                                                         "UNAVAILABLE",
                                                         "DATA_LOSS",
                                                         "UNAUTHENTICATED"};
  const int index = static_cast<int>(code);
  if (index < 0 || index >= static_cast<int>(kNames.size())) return "UNKNOWN";
  return kNames[index];
}

}  // namespace cupola::service
