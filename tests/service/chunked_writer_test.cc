#include "server/service/chunked_writer.h"

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/service/analysis_service.h"
#include "server/service/metrics.h"
#include "server/service/status.h"
#include "tests/service/proto_tensors.h"

namespace cupola::service {
namespace {

using ::testing::HasSubstr;

// Hands each GetFeatures call to the test.
class FakeAnalysis final : public RawAnalysis {
 public:
  explicit FakeAnalysis(Metrics* metrics) : metrics_(metrics) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetFeatures(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* /*request*/) override {
    auto* call = new ChunkedWriter(std::make_unique<RequestScope>(
        "GetFeatures", context, &gate_, metrics_));
    std::lock_guard<std::mutex> lock(mutex_);
    call_ = call;
    arrived_.notify_all();
    return call;
  }

  ChunkedWriter* TakeCall() {
    std::unique_lock<std::mutex> lock(mutex_);
    arrived_.wait(lock, [this] { return call_ != nullptr; });
    return std::exchange(call_, nullptr);
  }

  CallGate& gate() { return gate_; }

 private:
  CallGate gate_;
  Metrics* const metrics_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  ChunkedWriter* call_ = nullptr;
};

class ChunkedWriterTest : public ::testing::Test {
 protected:
  ChunkedWriterTest() : service_(&metrics_) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = v1::Analysis::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                            grpc::InsecureChannelCredentials()));
  }
  ~ChunkedWriterTest() override { StopServer(); }

  // Waits until every call has ended.
  void StopServer() { server_->Shutdown(); }

  std::unique_ptr<grpc::ClientReader<v1::FeaturesResponse>> Call() {
    return stub_->GetFeatures(&context_, v1::FeaturesRequest());
  }

  // What a count of requests by code says.
  bool Counted(const std::string& code) {
    return metrics_.Text().find("cupola_requests_total{code=\"" + code +
                                "\",method=\"GetFeatures\",model=\"\"} 1") !=
           std::string::npos;
  }

  Metrics metrics_{"1", "2"};
  FakeAnalysis service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Analysis::Stub> stub_;
  grpc::ClientContext context_;
};

v1::FeaturesResponse Header(int64_t columns) {
  v1::FeaturesResponse response;
  response.mutable_header()->mutable_features()->set_columns(columns);
  return response;
}

TEST_F(ChunkedWriterTest, AHeaderAlone) {
  const auto reader = Call();
  service_.TakeCall()->Send(Header(5), {});
  v1::FeaturesResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.header().features().columns(), 5);
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(Counted("OK"));
}

TEST_F(ChunkedWriterTest, PiecesOfAllSizesComeInFullChunks) {
  std::vector<std::string> pieces;
  for (const size_t size : {0, 1, 4095, 4096, 3 << 20, 0, 5, 1 << 20, 7, 0}) {
    std::string piece(size, '\0');
    for (size_t i = 0; i < size; ++i) {
      piece[i] = static_cast<char>((i * 31 + pieces.size()) % 251);
    }
    pieces.push_back(std::move(piece));
  }
  std::string expected;
  for (const std::string& piece : pieces) expected += piece;

  const auto reader = Call();
  service_.TakeCall()->Send(Header(5), std::move(pieces));
  v1::FeaturesResponse message;
  ASSERT_TRUE(reader->Read(&message));
  std::string got;
  while (reader->Read(&message)) {
    EXPECT_FALSE(message.has_header());
    EXPECT_EQ(got.size() % kChunkBytes, 0u) << "only the last may be short";
    EXPECT_LE(message.chunk().size(), static_cast<size_t>(kChunkBytes));
    EXPECT_FALSE(message.chunk().empty());
    got += message.chunk();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(got == expected);
}

TEST_F(ChunkedWriterTest, EmptyPiecesNeedNoChunk) {
  const auto reader = Call();
  service_.TakeCall()->Send(Header(5), {"", ""});
  v1::FeaturesResponse message;
  EXPECT_TRUE(reader->Read(&message));
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ChunkedWriterTest, FailureWithARetryDelay) {
  const auto reader = Call();
  absl::Status full = absl::ResourceExhaustedError("the queue is full");
  full.SetPayload(kRetryDelayPayload, absl::Cord("250"));
  service_.TakeCall()->Fail(full);
  v1::FeaturesResponse message;
  EXPECT_FALSE(reader->Read(&message));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "the queue is full");
  const auto& trailing = context_.GetServerTrailingMetadata();
  const auto pushback = trailing.find("grpc-retry-pushback-ms");
  ASSERT_NE(pushback, trailing.end());
  EXPECT_EQ(std::string(pushback->second.data(), pushback->second.size()),
            "250");
  EXPECT_TRUE(Counted("RESOURCE_EXHAUSTED"));
}

TEST_F(ChunkedWriterTest, ALongMessageReachesTheClient) {
  const auto reader = Call();
  service_.TakeCall()->Fail(
      absl::InvalidArgumentError(std::string(1 << 20, '\x01')));
  v1::FeaturesResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ChunkedWriterTest, AClientThatLeavesEndsTheStream) {
  const auto reader = Call();
  // More than any transport buffers, so that writing cannot have ended.
  service_.TakeCall()->Send(Header(5), {std::string(256 << 20, 'x')});
  v1::FeaturesResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context_.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  StopServer();
  EXPECT_TRUE(Counted("CANCELLED"));
}

TEST_F(ChunkedWriterTest, ACancelledCallIsSeenBeforeItsAnswer) {
  const auto reader = Call();
  ChunkedWriter* call = service_.TakeCall();
  const auto cancelled = call->scope().context().cancelled;
  EXPECT_FALSE(cancelled->load());
  context_.TryCancel();
  while (!cancelled->load()) absl::SleepFor(absl::Milliseconds(1));
  call->Send(Header(5), {});  // the answer comes too late
  v1::FeaturesResponse message;
  EXPECT_FALSE(reader->Read(&message));
  StopServer();
  EXPECT_TRUE(Counted("CANCELLED"));
}

TEST_F(ChunkedWriterTest, APassedDeadlineIsNoCancellation) {
  context_.set_deadline(
      absl::ToChronoTime(absl::Now() + absl::Milliseconds(50)));
  const auto reader = Call();
  ChunkedWriter* call = service_.TakeCall();
  const auto context = call->scope().context();
  EXPECT_LT(context.deadline, absl::Now() + absl::Seconds(1));
  while (!context.cancelled->load()) absl::SleepFor(absl::Milliseconds(1));
  call->Fail(absl::CancelledError("gone"));
  v1::FeaturesResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  StopServer();
  EXPECT_TRUE(Counted("DEADLINE_EXCEEDED"));
}

TEST_F(ChunkedWriterTest, WithoutADeadlineThereIsADefault) {
  const auto reader = Call();
  ChunkedWriter* call = service_.TakeCall();
  const auto context = call->scope().context();
  EXPECT_EQ(context.deadline, context.arrival + kDefaultDeadline);
  call->Send(Header(1), {});
  v1::FeaturesResponse message;
  EXPECT_TRUE(reader->Read(&message));
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ChunkedWriterTest, AStreamEndsAtItsNextChunkWhenTheGateIsCleared) {
  const auto reader = Call();
  service_.TakeCall()->Send(Header(5), {std::string(64 << 20, 'x')});
  v1::FeaturesResponse message;
  ASSERT_TRUE(reader->Read(&message));
  service_.gate().Clear();
  int64_t bytes = 0;
  while (reader->Read(&message)) bytes += message.chunk().size();
  EXPECT_LT(bytes, 64 << 20);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  StopServer();
  EXPECT_TRUE(Counted("UNAVAILABLE"));
}

TEST_F(ChunkedWriterTest, ACallIsRefusedByAShutGate) {
  service_.gate().Shut();
  const auto reader = Call();
  ChunkedWriter* call = service_.TakeCall();
  EXPECT_EQ(call->scope().admitted().code(), absl::StatusCode::kUnavailable);
  call->Fail(call->scope().admitted());
  v1::FeaturesResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ChunkedWriterTest, ShutdownCutsAStreamThatNobodyReads) {
  const auto reader = Call();
  service_.TakeCall()->Send(Header(5), {std::string(256 << 20, 'x')});
  v1::FeaturesResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Shutdown(absl::ToChronoTime(absl::Now()));
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
  EXPECT_TRUE(Counted("CANCELLED"));
}

}  // namespace
}  // namespace cupola::service
