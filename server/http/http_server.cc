#include "server/http/http_server.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "civetweb.h"
#include "server/http/connection.h"
#include "server/http/pages.h"
#include "server/http/socket_watch.h"

namespace cupola::http {
namespace {

// Questions and pages take up to 40 of them (see pages.cc); the others wait for
// headers, tell of health and refuse.
constexpr char kThreads[] = "160";
// Of a header; and of silence within a body or an answer.
constexpr char kRequestTimeoutMilliseconds[] = "5000";
// How soon Drain sees that the last answer has been sent.
constexpr absl::Duration kLookEvery = absl::Milliseconds(5);

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
    const char* settings[] = {"listening_ports", address.c_str(), "num_threads",
                              kThreads, "request_timeout_ms",
                              kRequestTimeoutMilliseconds,
                              // Else CivetWeb tells every page that it may.
                              "access_control_allow_origin", "",
                              "access_control_allow_methods", "", nullptr};
    mg_callbacks callbacks = {};
    callbacks.log_message = &KeepMessage;
    context_ = mg_start(&callbacks, &message_, settings);
    if (context_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", address, " for HTTP",
                       message_.empty() ? "" : ": ", message_));
    }
    mg_set_request_handler(context_, "**", &Answer, this);
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

  void Drain(absl::Time deadline) {
    while (answering_ > 0 && absl::Now() < deadline) absl::SleepFor(kLookEvery);
  }

 private:
  static int Answer(mg_connection* connection, void* impl) {
    auto* self = static_cast<Impl*>(impl);
    ++self->answering_;
    int code = 0;
    {
      Connection exchange(connection, &self->watch_);
      code = self->pages_.Answer(&exchange);
    }
    --self->answering_;
    return code;
  }

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
  SocketWatch watch_;
  std::atomic<int> answering_{0};
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
void HttpServer::Drain(absl::Time deadline) { impl_->Drain(deadline); }

}  // namespace cupola::http
