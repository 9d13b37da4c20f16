#include "server/http/http_server.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "civetweb.h"
#include "server/http/connection.h"
#include "server/http/pages.h"

namespace cupola::http {
namespace {

// Questions take up to 32 of them (see pages.cc).
constexpr char kThreads[] = "48";
constexpr char kRequestTimeoutMilliseconds[] = "10000";

int Answer(mg_connection* connection, void* pages) {
  Connection exchange(connection);
  return static_cast<Pages*>(pages)->Answer(&exchange);
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
  Impl(const HttpOptions& options, HttpSources sources)
      : pages_(options, std::move(sources)) {
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
    mg_set_request_handler(context_, "**", &Answer, &pages_);
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

  Pages pages_;
  std::string message_;  // only written while starting
  mg_context* context_ = nullptr;
  std::string client_host_;  // without brackets
  int port_ = 0;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const HttpOptions& options, HttpSources sources) {
  auto impl = std::make_unique<Impl>(options, std::move(sources));
  const absl::Status started = impl->Start(options);
  if (!started.ok()) return started;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

int HttpServer::port() const { return impl_->port(); }

}  // namespace cupola::http
