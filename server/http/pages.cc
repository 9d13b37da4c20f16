#include "server/http/pages.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/http/openapi.h"

namespace cupola::http {
namespace {

constexpr int kMaxAsking = 32;
constexpr int64_t kMaxBodyBytes = 32 << 20;
constexpr int64_t kAllBodyBytes = 256 << 20;
constexpr long kBusyRetryMilliseconds = 1000;
constexpr double kMaxTimeoutSeconds = 86400;
// From the exposition format's definition, version 0.0.4.
constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr char kTextType[] = "text/plain; charset=utf-8";

HttpAnswer Text(int code, std::string text) {
  return {code, kTextType, std::move(text), ""};
}

HttpAnswer NotAllowed(const char* allowed) {
  HttpAnswer answer = ErrorAnswer(
      absl::UnimplementedError(absl::StrCat("only ", allowed)), -1, 405);
  answer.headers = absl::StrCat("Allow: ", allowed, "\r\n");
  return answer;
}

HttpAnswer NoSuchPage() {
  return ErrorAnswer(absl::NotFoundError(
      "pages: /healthz, /readyz, /metrics, /v1/openapi.json, "
      "/v1/SERVICE/METHOD"));
}

// Gives back what was taken, whichever way a question ends.
template <typename Counter, typename Amount>
class Taken {
 public:
  Taken(Counter* counter, Amount amount) : counter_(counter), amount_(amount) {
    now_ = counter_->fetch_add(amount) + amount;
  }
  ~Taken() { counter_->fetch_sub(amount_); }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  Amount now() const { return now_; }

 private:
  Counter* const counter_;
  const Amount amount_;
  Amount now_;
};

bool IsHealth(absl::string_view path) {
  return path == "/healthz" || path == "/readyz";
}

bool IsRead(const Connection& connection) {
  return connection.method() == "GET" || connection.method() == "HEAD";
}

}  // namespace

Pages::Pages(const HttpOptions& options, HttpSources sources)
    : sources_(std::move(sources)),
      policy_(
          [&options] {
            std::vector<std::string> hosts = options.hosts;
            hosts.push_back(options.host);
            return hosts;
          }(),
          options.origins),
      openapi_(sources_.api == nullptr ? "" : OpenApi()) {}

absl::Status Pages::Check(const Connection& connection) const {
  const std::string host = connection.Header("Host");
  absl::Status status = policy_.CheckHost(host);
  const std::string origin = connection.Header("Origin");
  if (status.ok() && !origin.empty()) {
    status = policy_.CheckOrigin(origin, absl::StrCat("http://", host));
  }
  // A browser asks what it may without a token.
  if (status.ok() && sources_.admit && connection.method() != "OPTIONS") {
    status = sources_.admit(connection.Header("Authorization"),
                            connection.address());
  }
  return status;
}

std::string Pages::CorsHeaders(const Connection& connection) const {
  const std::string origin = connection.Header("Origin");
  if (origin.empty() || !policy_.IsListed(origin)) return "";
  return absl::StrCat("Access-Control-Allow-Origin: ", origin,
                      "\r\nVary: Origin\r\n",
                      "Access-Control-Expose-Headers: Retry-After\r\n");
}

int Pages::Answer(Connection* connection) {
  if (IsHealth(connection->path())) return connection->Reply(Get(*connection));
  if (const absl::Status checked = Check(*connection); !checked.ok()) {
    return connection->Reply(ErrorAnswer(checked), CorsHeaders(*connection));
  }
  const bool ask = absl::StartsWith(connection->path(), "/v1/") &&
                   connection->path() != "/v1/openapi.json";
  return connection->Reply(ask ? Post(connection) : Get(*connection),
                           CorsHeaders(*connection));
}

HttpAnswer Pages::Get(const Connection& connection) const {
  const absl::string_view path = connection.path();
  HttpAnswer answer;
  if (path == "/healthz") {
    answer = Text(200, "ok\n");
  } else if (path == "/readyz") {
    answer = sources_.ready() ? Text(200, "ok\n") : Text(503, "not ready\n");
  } else if (path == "/metrics") {
    if (IsRead(connection)) {
      answer = {200, kMetricsType, sources_.metrics(), ""};
    }
  } else if (path == "/v1/openapi.json" && !openapi_.empty()) {
    answer.body = openapi_;
  } else {
    return NoSuchPage();
  }
  return IsRead(connection) ? answer : NotAllowed("GET, HEAD");
}

HttpAnswer Pages::Post(Connection* connection) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(connection->path().substr(4), '/');
  if (sources_.api == nullptr || parts.size() != 2 ||
      JsonApi::Find(parts[0], parts[1]) == nullptr) {
    return NoSuchPage();
  }
  if (connection->method() == "OPTIONS") {
    HttpAnswer answer;
    answer.code = 204;
    answer.headers =
        "Allow: POST, OPTIONS\r\n"
        "Access-Control-Allow-Methods: POST\r\n"
        "Access-Control-Allow-Headers: "
        "authorization, content-type, cupola-timeout, traceparent\r\n"
        "Access-Control-Max-Age: 600\r\n";
    return answer;
  }
  if (connection->method() != "POST") return NotAllowed("POST, OPTIONS");
  return Ask(connection, parts[0], parts[1]);
}

HttpAnswer Pages::Ask(Connection* connection, absl::string_view service,
                      absl::string_view method) {
  // A page elsewhere cannot send this type without asking first.
  const std::string type = connection->Header("Content-Type");
  if (!absl::EqualsIgnoreCase(
          absl::StripAsciiWhitespace(type.substr(0, type.find(';'))),
          kJsonType)) {
    return ErrorAnswer(
        absl::InvalidArgumentError(
            "the content type is another one; accepted: application/json"),
        -1, 415);
  }
  JsonCall call;
  call.service = std::string(service);
  call.method = std::string(method);
  if (const std::string timeout = connection->Header("Cupola-Timeout");
      !timeout.empty()) {
    double seconds = 0;
    if (!absl::SimpleAtod(timeout, &seconds) || !(seconds > 0) ||
        seconds > kMaxTimeoutSeconds) {
      return ErrorAnswer(absl::InvalidArgumentError(
          absl::StrCat("Cupola-Timeout is no number of seconds; accepted: "
                       "above 0, at most ",
                       kMaxTimeoutSeconds)));
    }
    call.timeout = absl::Seconds(seconds);
  }
  const Taken asking(&asking_, 1);
  if (asking.now() > kMaxAsking) {
    return ErrorAnswer(
        absl::ResourceExhaustedError(absl::StrCat(
            asking.now(),
            " questions at a time over HTTP; accepted: ", kMaxAsking)),
        kBusyRetryMilliseconds);
  }
  const std::string length = connection->Header("Content-Length");
  int64_t expected = kMaxBodyBytes;  // not announced
  if (!length.empty() && absl::SimpleAtoi(length, &expected)) {
    expected = std::clamp<int64_t>(expected, 0, kMaxBodyBytes);
  }
  const Taken bodies(&body_bytes_, expected);
  if (bodies.now() > kAllBodyBytes) {
    return ErrorAnswer(absl::ResourceExhaustedError(absl::StrCat(
                           "bodies of ", bodies.now(),
                           " bytes at a time; accepted: ", kAllBodyBytes)),
                       kBusyRetryMilliseconds);
  }
  absl::StatusOr<std::string> body = connection->ReadBody(kMaxBodyBytes);
  if (!body.ok()) {
    return ErrorAnswer(body.status(), -1,
                       absl::IsResourceExhausted(body.status()) ? 413 : 0);
  }
  call.body = *std::move(body);
  call.frames = absl::StrContains(connection->Header("Accept"), kBytesType);
  call.authorization = connection->Header("Authorization");
  call.address = connection->address();
  call.traceparent = connection->Header("traceparent");
  return sources_.api->Call(call);
}

}  // namespace cupola::http
