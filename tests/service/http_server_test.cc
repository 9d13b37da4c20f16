#include "server/http/http_server.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/service/http_get.h"

namespace cupola::http {
namespace {

using ::cupola::testing::HttpExchange;
using ::cupola::testing::HttpGet;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    HttpOptions options;
    options.port = 0;
    options.hosts = {"lab.example"};
    options.origins = {"https://page.example"};
    HttpSources sources;
    sources.metrics = [] { return std::string("metric 1\n"); };
    sources.ready = [this] { return ready_.load(); };
    sources.admit = [this](const std::string& authorization,
                           const std::string& address) {
      EXPECT_EQ(address, "127.0.0.1");
      return token_.empty() || authorization == token_
                 ? absl::OkStatus()
                 : absl::UnauthenticatedError("no");
    };
    auto server = HttpServer::Start(options, std::move(sources));
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // GET /metrics with these headers.
  std::string Metrics(const std::string& headers) {
    return HttpExchange(server_->port(), "GET /metrics HTTP/1.1\r\n" + headers +
                                             "Connection: close\r\n\r\n");
  }

  std::atomic<bool> ready_{false};
  std::string token_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, Metrics) {
  EXPECT_GT(server_->port(), 0);
  const std::string answer = HttpGet(server_->port(), "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nmetric 1\n"));
}

TEST_F(HttpServerTest, LiveIsNotReady) {
  EXPECT_THAT(HttpGet(server_->port(), "/healthz"),
              StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(HttpGet(server_->port(), "/readyz"), StartsWith("HTTP/1.1 503 "));
  ready_ = true;
  EXPECT_THAT(HttpGet(server_->port(), "/readyz"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, OtherPagesAndMethods) {
  for (const char* path : {"/", "/metrics/x", "/metrics2", "/../etc/passwd"}) {
    EXPECT_THAT(HttpGet(server_->port(), path),
                ::testing::AnyOf(StartsWith("HTTP/1.1 404 "),
                                 StartsWith("HTTP/1.1 400 ")))
        << path;
  }
  EXPECT_THAT(HttpExchange(server_->port(),
                           "POST /metrics HTTP/1.1\r\nHost: [::1]\r\n"
                           "Content-Length: 0\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(HttpExchange(server_->port(),
                           "HEAD /healthz HTTP/1.1\r\nHost: y\r\n"
                           "Connection: close\r\n\r\n"),
              EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, Hosts) {
  for (const char* host :
       {"localhost", "LocalHost:7071", "127.0.0.1", "192.0.2.7:80", "[::1]:7",
        "lab.example", "LAB.example:7071"}) {
    EXPECT_THAT(Metrics(std::string("Host: ") + host + "\r\n"),
                StartsWith("HTTP/1.1 200 "))
        << host;
  }
  for (const char* host :
       {"evil.example", "evil.example:7071", "127.0.0.1.evil.example",
        "localhost.evil.example", "[::1", "", "lab.example.evil"}) {
    EXPECT_THAT(Metrics(std::string("Host: ") + host + "\r\n"),
                ::testing::AnyOf(StartsWith("HTTP/1.1 403 "),
                                 StartsWith("HTTP/1.1 400 ")))
        << host;
  }
  // Probes know no name.
  EXPECT_THAT(HttpExchange(server_->port(),
                           "GET /healthz HTTP/1.1\r\nHost: pod-7\r\n"
                           "Connection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, Origins) {
  const std::string host = "Host: localhost:7071\r\n";
  EXPECT_THAT(Metrics(host + "Origin: http://localhost:7071\r\n"),
              StartsWith("HTTP/1.1 200 "));
  const std::string listed = Metrics(host + "Origin: https://page.example\r\n");
  EXPECT_THAT(listed, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(
      listed,
      HasSubstr("Access-Control-Allow-Origin: https://page.example\r\n"));
  EXPECT_THAT(listed, HasSubstr("Vary: Origin\r\n"));
  for (const char* origin :
       {"https://evil.example", "http://page.example", "null",
        "https://page.example.evil", "http://localhost:7072"}) {
    const std::string answer = Metrics(host + "Origin: " + origin + "\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 403 ")) << origin;
    EXPECT_THAT(answer, ::testing::Not(HasSubstr("Access-Control")));
  }
}

TEST_F(HttpServerTest, AllButHealthAsksForTheToken) {
  token_ = "Bearer x";
  const std::string host = "Host: localhost\r\n";
  const std::string refused = Metrics(host);
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(refused, HasSubstr("WWW-Authenticate: Bearer\r\n"));
  EXPECT_THAT(refused, HasSubstr("\"code\":\"UNAUTHENTICATED\""));
  EXPECT_THAT(Metrics(host + "Authorization: Bearer x\r\n"),
              StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(HttpGet(server_->port(), "/healthz"),
              StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, GarbageIsAnsweredOrClosed) {
  HttpExchange(server_->port(), "\x01\x02garbage\r\n\r\n");
  EXPECT_THAT(HttpGet(server_->port(), "/healthz"),
              StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, ATakenPortIsAnError) {
  HttpOptions options;
  options.port = server_->port();
  const auto second = HttpServer::Start(options, {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(std::to_string(server_->port())));
}

}  // namespace
}  // namespace cupola::http
