#include "server/http/http_answer.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace cupola::http {
namespace {

constexpr char kRetryPayload[] = "cupola.http/retry-milliseconds";
constexpr int64_t kBusyRetryMilliseconds = 1000;

}  // namespace

int HttpCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

const char* HttpReason(int code) {
  switch (code) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 499:
      return "Client Closed Request";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Internal Server Error";
  }
}

absl::Status WithRetry(absl::Status error, int64_t milliseconds) {
  error.SetPayload(kRetryPayload, absl::Cord(absl::StrCat(milliseconds)));
  return error;
}

absl::Status Busy(const std::string& message) {
  return WithRetry(absl::ResourceExhaustedError(message),
                   kBusyRetryMilliseconds);
}

HttpAnswer ErrorAnswer(const absl::Status& error, int code) {
  HttpAnswer answer;
  answer.code = code == 0 ? HttpCode(error.code()) : code;
  nlohmann::ordered_json body = {
      {"code", absl::StatusCodeToString(error.code())},
      {"message", std::string(error.message())},
      {"details", nlohmann::ordered_json::array()}};
  const auto retry = error.GetPayload(kRetryPayload);
  int64_t milliseconds = 0;
  if (retry.has_value() &&
      absl::SimpleAtoi(std::string(*retry), &milliseconds)) {
    body["details"].push_back({{"retryDelayMs", milliseconds}});
    answer.headers =
        absl::StrCat("Retry-After: ", (milliseconds + 999) / 1000, "\r\n");
  }
  if (answer.code == 401) {
    absl::StrAppend(&answer.headers, "WWW-Authenticate: Bearer\r\n");
  }
  answer.body = body.dump(-1, ' ', false,
                          nlohmann::ordered_json::error_handler_t::replace) +
                "\n";
  return answer;
}

}  // namespace cupola::http
