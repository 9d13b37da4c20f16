// How a server ends: every call with its answer, or as UNAVAILABLE.

#include <atomic>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "cupola/v1/catalog.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/service/http_get.h"
#include "tests/service/lifecycle_fixture.h"

namespace cupola::testing {
namespace {

using ::testing::HasSubstr;

using DrainTest = LifecycleTest;

TEST_F(DrainTest, SigtermEndsWithZero) {
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  ASSERT_TRUE(server->Connect()->List().ok());
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0);
  EXPECT_THAT(ReadWhole(folder_ + "/log"), HasSubstr("\"draining\""));
}

TEST_F(DrainTest, SigintWhileLoadingEndsWithZero) {
  AddSlowModel();
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->Signal(SIGINT);
  EXPECT_EQ(server->Wait(), 0);
}

TEST_F(DrainTest, ADrainLetsAStreamFinish) {
  const auto server = StartSlow();
  ASSERT_NE(server, nullptr);
  Stream stream(*server, LargeAnswer());
  const int64_t announced = ReadHeader(&stream);
  EXPECT_GT(announced, 60 << 20);
  // The stream is open and most of it unread: now the server is told to end.
  server->Signal(SIGTERM);
  while (!HttpGet(server->http_port(), "/readyz").empty() &&
         HttpGet(server->http_port(), "/readyz").rfind("HTTP/1.1 200", 0) ==
             0) {
  }
  EXPECT_EQ(stream.ReadToTheEnd(), announced);
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(server->Wait(), 0);
}

// It asks for features, then for ablations, twice: none of them is new.
TEST_F(DrainTest, ADrainFinishesATableThatHasBegun) {
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  v1::AblationTableRequest request;
  request.set_dictionary("tiny/sae");
  for (int i = 0; i < 2000; ++i) {
    request.mutable_prompts()->add_prompts()->set_text(
        std::to_string(i) + std::string(40, static_cast<char>('a' + i % 26)));
  }
  const auto client = server->Connect();
  absl::Status status;
  std::thread asking(
      [&] { status = client->TabulateAblations(request).status(); });
  AwaitMetric(*server, "cupola_requests_in_flight 1\n");
  server->Signal(SIGTERM);
  asking.join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(server->Wait(), 0);
}

TEST_F(DrainTest, ADrainEndsWhatDoesNotFinish) {
  const auto server = StartSlow({"--drain_seconds=0"});
  ASSERT_NE(server, nullptr);
  Stream stream(*server, LargeAnswer());
  const int64_t announced = ReadHeader(&stream);
  server->Signal(SIGTERM);  // and nobody reads
  EXPECT_EQ(server->Wait(), 0);
  EXPECT_LT(stream.ReadToTheEnd(), announced);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(DrainTest, ADrainEndsWhatStillComputes) {
  const auto server = StartSlow({"--drain_seconds=0"});
  ASSERT_NE(server, nullptr);
  Stream running(*server, LongWork('a'));
  AwaitMetric(*server, "cupola_requests_in_flight 1\n");
  Stream queued(*server, LongWork('0'));
  AwaitMetric(*server, "cupola_requests_in_flight 2\n");
  server->Signal(SIGTERM);
  for (Stream* stream : {&running, &queued}) {
    EXPECT_EQ(stream->ReadToTheEnd(), 0);
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(status.error_message(), "the server is shutting down");
  }
  EXPECT_EQ(server->Wait(), 0);
}

TEST_F(DrainTest, CallsThatCrossTheEndAreUnavailable) {
  constexpr int kClients = 6;
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  // Each asks, on a connection of its own, until it gets no answer.
  std::atomic<int> answered{0};
  std::vector<grpc::Status> ends(kClients);
  std::vector<std::thread> clients;
  for (grpc::Status& end : ends) {
    clients.emplace_back([&] {
      grpc::ChannelArguments apart;
      apart.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      v1::Catalog::Stub stub(grpc::CreateCustomChannel(
          server->address(), grpc::InsecureChannelCredentials(), apart));
      bool first = true;
      while (end.ok()) {
        grpc::ClientContext context;
        v1::DescribeRequest request;
        request.set_name("tiny/sae");
        v1::DescribeResponse response;
        end = stub.Describe(&context, request, &response);
        if (std::exchange(first, false)) ++answered;
      }
    });
  }
  while (answered < kClients) absl::SleepFor(absl::Milliseconds(1));
  server->Signal(SIGTERM);
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(server->Wait(), 0);
  for (const grpc::Status& end : ends) {
    EXPECT_EQ(end.error_code(), grpc::StatusCode::UNAVAILABLE)
        << end.error_message();
  }
}

TEST_F(DrainTest, ASecondSignalEndsAtOnce) {
  const auto server = StartSlow({"--drain_seconds=3600"});
  ASSERT_NE(server, nullptr);
  Stream stream(*server, LargeAnswer());
  ReadHeader(&stream);
  server->Signal(SIGTERM);
  while (ReadWhole(folder_ + "/log").find("\"draining\"") ==
         std::string::npos) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), -SIGTERM);
}

}  // namespace
}  // namespace cupola::testing
