#ifndef CUPOLA_SERVER_HTTP_HTTP_ANSWER_H_
#define CUPOLA_SERVER_HTTP_HTTP_ANSWER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace cupola::http {

inline constexpr char kJsonType[] = "application/json";
inline constexpr char kBytesType[] = "application/octet-stream";

struct HttpAnswer {
  int code = 200;
  std::string type = kJsonType;
  std::string body;
  std::string headers;  // further ones, each with its line's end
};

// The HTTP status of an error, as Google's APIs map codes: 400 for
// INVALID_ARGUMENT, FAILED_PRECONDITION and OUT_OF_RANGE, 401, 403, 404, 409
// (ALREADY_EXISTS, ABORTED), 429, 499 (CANCELLED), 501, 503, 504, else 500.
int HttpCode(absl::StatusCode code);
// "Not Found", ...: of a status line.
const char* HttpReason(int code);

// RESOURCE_EXHAUSTED that passes by itself: come again in a second.
absl::Status Busy(const std::string& message);

// `error`, with a delay after which to try again.
absl::Status WithRetry(absl::Status error, int64_t milliseconds);

// {"code": "NOT_FOUND", "message": "...", "details": []}. With a delay after
// which to try again (see WithRetry), that is the one item of details,
// {"retryDelayMs": N}, and the header Retry-After, in whole seconds. `code`: 0:
// the error's own.
HttpAnswer ErrorAnswer(const absl::Status& error, int code = 0);

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_HTTP_ANSWER_H_
