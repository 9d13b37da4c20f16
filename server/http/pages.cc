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
constexpr int kMaxReading = 8;
constexpr int64_t kMaxBodyBytes = 32 << 20;
constexpr int64_t kBudgetBytes = 1 << 30;
constexpr double kMaxTimeoutSeconds = 86400;
// From the exposition format's definition, version 0.0.4.
constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr char kTextType[] = "text/plain; charset=utf-8";

HttpAnswer Text(int code, std::string text) {
  return {code, kTextType, std::move(text), ""};
}

HttpAnswer NotAllowed(const char* allowed) {
  HttpAnswer answer = ErrorAnswer(
      absl::UnimplementedError(absl::StrCat("only ", allowed)), 405);
  answer.headers = absl::StrCat("Allow: ", allowed, "\r\n");
  return answer;
}

HttpAnswer NoSuchPage(const HttpSources& sources) {
  return ErrorAnswer(absl::NotFoundError(
      sources.api == nullptr
          ? absl::StrCat("pages: /healthz, /readyz, /metrics; ",
                         sources.why_no_api)
          : "pages: /healthz, /readyz, /metrics, /v1/openapi.json, "
            "/v1/SERVICE/METHOD"));
}

// One of a number of places, for as long as it lives, if there is one left.
class Place {
 public:
  Place(std::atomic<int>* taken, int most)
      : taken_(taken), mine_(taken->fetch_add(1) < most) {
    if (!mine_) --*taken_;
  }
  ~Place() {
    if (mine_) --*taken_;
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  bool mine() const { return mine_; }

 private:
  std::atomic<int>* const taken_;
  const bool mine_;
};

HttpAnswer TooMany(const char* what, int most) {
  return ErrorAnswer(Busy(absl::StrCat(
      "more ", what, " at a time over HTTP than accepted: ", most)));
}

bool IsQuestion(absl::string_view path) {
  return absl::StartsWith(path, "/v1/") && path != "/v1/openapi.json";
}

// The seconds of a Cupola-Timeout header.
absl::StatusOr<absl::Duration> ReadTimeout(const std::string& text) {
  double seconds = 0;
  if (!absl::SimpleAtod(text, &seconds) || !(seconds > 0) ||
      seconds > kMaxTimeoutSeconds) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Cupola-Timeout is no number of seconds; accepted: above 0, at most ",
        kMaxTimeoutSeconds));
  }
  return absl::Seconds(seconds);
}

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
      openapi_(sources_.api == nullptr ? "" : OpenApi()),
      // The largest answer, and what it is made of, must fit.
      budget_(
          sources_.api == nullptr
              ? 0
              : std::max(kBudgetBytes, 4 * sources_.api->max_answer_bytes())) {}

absl::Status Pages::Check(const Connection& connection) const {
  const std::string host = connection.Header("Host");
  absl::Status status = policy_.CheckHost(host);
  const std::string origin = connection.Header("Origin");
  if (status.ok() && !origin.empty()) {
    status = policy_.CheckOrigin(origin, host);
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
  return absl::StrCat(
      "Access-Control-Allow-Origin: ", origin, "\r\nVary: Origin\r\n",
      "Access-Control-Expose-Headers: Retry-After, traceparent\r\n");
}

int Pages::Answer(Connection* connection) {
  if (IsHealth(connection->path())) {
    return connection->Reply(Health(*connection));
  }
  if (const absl::Status checked = Check(*connection); !checked.ok()) {
    return connection->Reply(ErrorAnswer(checked), CorsHeaders(*connection));
  }
  if (connection->method() == "OPTIONS") {
    return connection->Reply(Options(*connection), CorsHeaders(*connection));
  }
  return IsQuestion(connection->path()) ? Ask(connection) : Read(connection);
}

HttpAnswer Pages::Health(const Connection& connection) const {
  if (!IsRead(connection)) return NotAllowed("GET, HEAD");
  if (connection.path() == "/healthz" || sources_.ready()) {
    return Text(200, "ok\n");
  }
  return Text(503, "not ready\n");
}

HttpAnswer Pages::Options(const Connection& connection) const {
  const char* methods = IsQuestion(connection.path()) ? "POST" : "GET, HEAD";
  HttpAnswer answer;
  answer.code = 204;
  answer.headers = absl::StrCat(
      "Allow: ", methods,
      ", OPTIONS\r\nAccess-Control-Allow-Methods: ", methods,
      "\r\nAccess-Control-Allow-Headers: "
      "authorization, content-type, cupola-timeout, traceparent\r\n"
      "Access-Control-Max-Age: 600\r\n");
  return answer;
}

int Pages::Read(Connection* connection) {
  const absl::string_view path = connection->path();
  const Place reading(&reading_, kMaxReading);
  HttpAnswer answer;
  if (path != "/metrics" && (path != "/v1/openapi.json" || openapi_.empty())) {
    answer = NoSuchPage(sources_);
  } else if (!IsRead(*connection)) {
    answer = NotAllowed("GET, HEAD, OPTIONS");
  } else if (!reading.mine()) {
    answer = TooMany("pages", kMaxReading);
  } else if (path == "/metrics") {
    answer = {200, kMetricsType, sources_.metrics(), ""};
  } else {
    answer.body = openapi_;
  }
  return connection->Reply(answer, CorsHeaders(*connection));
}

int Pages::Ask(Connection* connection) {
  // Both are held until the answer has been sent.
  const Place asking(&asking_, kMaxAsking);
  ByteBudget::Share share(&budget_);
  const HttpAnswer answer = asking.mine() ? AskApi(connection, &share)
                                          : TooMany("questions", kMaxAsking);
  return connection->Reply(answer, CorsHeaders(*connection));
}

HttpAnswer Pages::AskApi(Connection* connection, ByteBudget::Share* share) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(connection->path().substr(4), '/');
  if (sources_.api == nullptr || parts.size() != 2 ||
      JsonApi::Find(parts[0], parts[1]) == nullptr) {
    return NoSuchPage(sources_);
  }
  if (connection->method() != "POST") return NotAllowed("POST, OPTIONS");
  // A page elsewhere cannot send this type without asking first.
  const std::string type = connection->Header("Content-Type");
  if (!absl::EqualsIgnoreCase(
          absl::StripAsciiWhitespace(type.substr(0, type.find(';'))),
          kJsonType)) {
    return ErrorAnswer(
        absl::InvalidArgumentError(
            "the content type is another one; accepted: application/json"),
        415);
  }
  JsonCall call;
  if (const std::string timeout = connection->Header("Cupola-Timeout");
      !timeout.empty()) {
    const absl::StatusOr<absl::Duration> read = ReadTimeout(timeout);
    if (!read.ok()) return ErrorAnswer(read.status());
    call.timeout = *read;
  }
  const int64_t announced = connection->announced_bytes();
  const absl::Status held = share->Hold(
      announced < 0 ? kMaxBodyBytes : std::min(announced, kMaxBodyBytes));
  if (!held.ok()) return ErrorAnswer(held);
  absl::StatusOr<std::string> body = connection->ReadBody(kMaxBodyBytes);
  if (!body.ok()) {
    return ErrorAnswer(body.status(),
                       absl::IsResourceExhausted(body.status()) ? 413 : 0);
  }
  call.service = std::string(parts[0]);
  call.method = std::string(parts[1]);
  call.body = *std::move(body);
  call.frames = absl::StrContains(connection->Header("Accept"), kBytesType);
  call.authorization = connection->Header("Authorization");
  call.address = connection->address();
  call.traceparent = connection->Header("traceparent");
  call.gone = [connection] { return connection->Gone(); };
  call.share = share;
  return sources_.api->Call(std::move(call));
}

}  // namespace cupola::http
