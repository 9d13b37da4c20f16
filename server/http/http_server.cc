#include "server/http/http_server.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "civetweb.h"

namespace cupola::http {
namespace {

constexpr char kThreads[] = "4";
constexpr char kRequestTimeoutMilliseconds[] = "10000";
// From the exposition format's definition, version 0.0.4.
constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr char kTextType[] = "text/plain; charset=utf-8";

// Answers the request, and returns its status code, which tells CivetWeb that
// it has been handled.
int Reply(mg_connection* connection, int code, const char* reason,
          const char* type, const std::string& body) {
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string header = absl::StrCat(
      "HTTP/1.1 ", code, " ", reason, "\r\nContent-Type: ", type,
      "\r\nContent-Length: ", body.size(),
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
      code == 405 ? "Allow: GET, HEAD\r\n" : "", "\r\n");
  mg_write(connection, header.data(), header.size());
  if (std::strcmp(request->request_method, "HEAD") != 0) {
    mg_write(connection, body.data(), body.size());
  }
  return code;
}

bool IsRead(const mg_connection* connection) {
  const char* method = mg_get_request_info(connection)->request_method;
  return std::strcmp(method, "GET") == 0 || std::strcmp(method, "HEAD") == 0;
}

int Page(mg_connection* connection, void* data) {
  const auto& sources = *static_cast<const HttpSources*>(data);
  if (!IsRead(connection)) {
    return Reply(connection, 405, "Method Not Allowed", kTextType,
                 "only GET and HEAD\n");
  }
  const absl::string_view path = mg_get_request_info(connection)->local_uri;
  if (path == "/metrics") {
    return Reply(connection, 200, "OK", kMetricsType, sources.metrics());
  }
  if (path == "/healthz")
    return Reply(connection, 200, "OK", kTextType, "ok\n");
  if (path == "/readyz") {
    return sources.ready() ? Reply(connection, 200, "OK", kTextType, "ok\n")
                           : Reply(connection, 503, "Service Unavailable",
                                   kTextType, "not ready\n");
  }
  return Reply(connection, 404, "Not Found", kTextType,
               "pages: /metrics, /healthz, /readyz\n");
}

// CivetWeb explains on its log only why it does not start.
int KeepMessage(const mg_connection* connection, const char* message) {
  auto* kept = static_cast<std::string*>(mg_get_user_context_data(connection));
  if (kept != nullptr && kept->empty()) *kept = message;
  return 1;  // do not print it
}

}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(HttpSources sources) : sources_(std::move(sources)) {
    mg_init_library(0);
  }
  ~Impl() {
    if (context_ != nullptr) Stop();
    mg_exit_library();
  }

  absl::Status Start(const HttpOptions& options) {
    const std::string address = absl::StrCat(options.host, ":", options.port);
    const char* settings[] = {"listening_ports",
                              address.c_str(),
                              "num_threads",
                              kThreads,
                              "request_timeout_ms",
                              kRequestTimeoutMilliseconds,
                              nullptr};
    mg_callbacks callbacks = {};
    callbacks.log_message = &KeepMessage;
    context_ = mg_start(&callbacks, &message_, settings);
    if (context_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", address, " for HTTP",
                       message_.empty() ? "" : ": ", message_));
    }
    mg_set_request_handler(context_, "**", &Page, &sources_);
    mg_server_port bound = {};
    if (mg_get_server_ports(context_, 1, &bound) < 1) {
      return absl::UnavailableError(
          absl::StrCat("cannot tell the port of ", address));
    }
    port_ = bound.port;
    client_host_ = options.host;
    if (client_host_.front() == '[') {
      client_host_ = client_host_.substr(1, client_host_.size() - 2);
    }
    return absl::OkStatus();
  }

  int port() const { return port_; }

 private:
  // CivetWeb looks for the order to stop every two seconds, or when a client
  // connects: so one does.
  void Stop() {
    std::atomic<bool> stopped{false};
    std::thread waker([this, &stopped] {
      char unused[256];
      while (!stopped) {
        mg_connection* connection = mg_connect_client(
            client_host_.c_str(), port_, 0, unused, sizeof unused);
        if (connection != nullptr) mg_close_connection(connection);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    });
    mg_stop(context_);
    stopped = true;
    waker.join();
  }

  HttpSources sources_;
  std::string message_;  // only written while starting
  mg_context* context_ = nullptr;
  std::string client_host_;  // without brackets
  int port_ = 0;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const HttpOptions& options, HttpSources sources) {
  auto impl = std::make_unique<Impl>(std::move(sources));
  const absl::Status started = impl->Start(options);
  if (!started.ok()) return started;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

int HttpServer::port() const { return impl_->port(); }

}  // namespace cupola::http
