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
    auto server = HttpServer::Start({"127.0.0.1", 0},
                                    {[] { return std::string("metric 1\n"); },
                                     [this] { return ready_.load(); }});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::atomic<bool> ready_{false};
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
                           "POST /metrics HTTP/1.1\r\nHost: x\r\n"
                           "Content-Length: 0\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(HttpExchange(server_->port(),
                           "HEAD /healthz HTTP/1.1\r\nHost: x\r\n"
                           "Connection: close\r\n\r\n"),
              EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, GarbageIsAnsweredOrClosed) {
  HttpExchange(server_->port(), "\x01\x02garbage\r\n\r\n");
  EXPECT_THAT(HttpGet(server_->port(), "/healthz"),
              StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, ATakenPortIsAnError) {
  const auto second = HttpServer::Start({"127.0.0.1", server_->port()}, {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(std::to_string(server_->port())));
}

}  // namespace
}  // namespace cupola::http
