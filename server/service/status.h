#ifndef CUPOLA_SERVER_SERVICE_STATUS_H_
#define CUPOLA_SERVER_SERVICE_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"

// How an absl::Status leaves the server. The codes of absl and gRPC are the
// same numbers.

namespace cupola::service {

// An error that may pass by itself (a full queue) carries, under this payload
// URL, the milliseconds after which a client should try again, in decimal.
extern const char kRetryDelayPayload[];

// The status line travels as an HTTP/2 header, and clients refuse metadata
// above 8 KiB: longer messages are cut at a character's border and end in
// "...".
inline constexpr size_t kMaxStatusMessage = 1500;

// Returns `status` for the wire. When it carries a retry delay, adds gRPC's
// trailing metadata `grpc-retry-pushback-ms` to `context`, so it must be called
// before Finish; `context` may be null.
grpc::Status ToGrpcStatus(const absl::Status& status,
                          grpc::ServerContextBase* context);

// "OK", "INVALID_ARGUMENT", ...: the value of the `code` label and log field.
const char* CodeName(grpc::StatusCode code);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_STATUS_H_
