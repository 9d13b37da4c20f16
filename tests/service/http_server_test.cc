#include "server/http/http_server.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/service/http_get.h"

namespace cupola::http {
namespace {

using ::cupola::testing::HttpClient;
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
    sources.metrics = [this] { return metrics_; };
    sources.why_no_api = "none is served";
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
  std::string token_, metrics_ = "metric 1\n";
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
  // Its own; with https where a proxy encrypts.
  for (const char* own : {"http://localhost:7071", "https://localhost:7071"}) {
    const std::string answer = Metrics(host + "Origin: " + own + "\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 ")) << own;
    EXPECT_THAT(answer, ::testing::Not(HasSubstr("Access-Control")));
  }
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

// As browsers ask before they send a page's own headers.
TEST_F(HttpServerTest, Preflights) {
  token_ = "Bearer x";  // browsers ask without
  const auto ask = [this](const std::string& origin) {
    return HttpExchange(server_->port(),
                        "OPTIONS /metrics HTTP/1.1\r\nHost: localhost\r\n"
                        "Origin: " +
                            origin +
                            "\r\nAccess-Control-Request-Method: GET\r\n"
                            "Access-Control-Request-Headers: authorization\r\n"
                            "Connection: close\r\n\r\n");
  };
  const std::string listed = ask("https://page.example");
  EXPECT_THAT(listed, StartsWith("HTTP/1.1 204 "));
  for (const char* line :
       {"Access-Control-Allow-Origin: https://page.example\r\n",
        "Access-Control-Allow-Methods: GET, HEAD\r\n",
        "Access-Control-Allow-Headers: authorization, "}) {
    EXPECT_THAT(listed, HasSubstr(line));
  }
  const std::string other = ask("https://evil.example");
  EXPECT_THAT(other, StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(other, ::testing::Not(HasSubstr("Access-Control")));
}

// Connections that send nothing, or announce more than anybody would wait for.
TEST_F(HttpServerTest, HealthIsKeptFromBusyClients) {
  std::vector<std::unique_ptr<HttpClient>> idle, endless;
  for (int i = 0; i < 60; ++i) {
    idle.push_back(std::make_unique<HttpClient>(server_->port()));
    endless.push_back(std::make_unique<HttpClient>(server_->port()));
    endless.back()->Send(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Length: 1000000000000000\r\n\r\nx");
  }
  EXPECT_THAT(HttpGet(server_->port(), "/healthz"),
              StartsWith("HTTP/1.1 200 "));
  for (const auto& client : endless) {
    EXPECT_THAT(client->ReadAll(), StartsWith("HTTP/1.1 200 "));
  }
}

TEST_F(HttpServerTest, DrainWaitsForAnswers) {
  HttpClient client(server_->port());
  metrics_ = std::string(64 << 20, 'm');  // more than the kernel takes
  client.Send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(client.Read(12), StartsWith("HTTP/1.1 200"));
  std::string rest;
  std::thread reader([&] { rest = client.ReadAll(); });
  server_->Drain(absl::Now() + absl::Seconds(60));
  server_.reset();
  reader.join();
  EXPECT_GT(rest.size(), metrics_.size());
}

TEST_F(HttpServerTest, DrainEndsAtItsDeadline) {
  HttpClient client(server_->port());
  metrics_ = std::string(64 << 20, 'm');
  client.Send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(client.Read(12), StartsWith("HTTP/1.1 200"));
  server_->Drain(absl::Now() + absl::Milliseconds(50));
  server_.reset();
  EXPECT_LT(client.ReadAll().size(), metrics_.size());
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

TEST_F(HttpServerTest, WithoutAnApiItSaysWhy) {
  const std::string answer =
      HttpExchange(server_->port(),
                   "POST /v1/Catalog/List HTTP/1.1\r\nHost: localhost\r\n"
                   "Content-Type: application/json\r\nContent-Length: 2\r\n"
                   "\r\n{}");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(answer, HasSubstr("none is served"));
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
