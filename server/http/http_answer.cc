#include "server/http/http_answer.h"

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace cupola::http {

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

HttpAnswer ErrorAnswer(const absl::Status& error, long retry_milliseconds,
                       int code) {
  HttpAnswer answer;
  answer.code = code == 0 ? HttpCode(error.code()) : code;
  nlohmann::ordered_json body = {
      {"code", absl::StatusCodeToString(error.code())},
      {"message", std::string(error.message())},
      {"details", nlohmann::ordered_json::array()}};
  if (retry_milliseconds >= 0) {
    body["details"].push_back({{"retryDelayMs", retry_milliseconds}});
    answer.headers = absl::StrCat(
        "Retry-After: ", (retry_milliseconds + 999) / 1000, "\r\n");
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
