#include "client/cpp/client.h"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/cpp/routing_key.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "cupola/v1/catalog.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace cupola {
namespace {

using ::testing::HasSubstr;

// Answers what the test puts in, and keeps the metadata of the last call.
class FakeServer final : public v1::Analysis::Service {
 public:
  grpc::Status GetFeatures(
      grpc::ServerContext* context, const v1::FeaturesRequest* /*request*/,
      grpc::ServerWriter<v1::FeaturesResponse>* writer) override {
    ++calls;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      metadata_.clear();
      for (const auto& [key, value] : context->client_metadata()) {
        metadata_[std::string(key.data(), key.size())] =
            std::string(value.data(), value.size());
      }
    }
    if (failures-- > 0) return failure;
    for (const v1::FeaturesResponse& message : messages) {
      if (!writer->Write(message)) break;
    }
    return last;
  }

  // Tokens 0, 1, ... as many as asked for, or until the client has gone; the
  // end only after all of them.
  grpc::Status Generate(
      grpc::ServerContext* context, const v1::GenerateRequest* request,
      grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    v1::GenerateResponse message;
    for (uint32_t i = 0; i < request->max_new_tokens(); ++i) {
      message.Clear();
      message.add_tokens()->mutable_chosen()->set_id(i);
      if (context->IsCancelled() || !writer->Write(message)) {
        return grpc::Status::CANCELLED;
      }
    }
    message.Clear();
    message.mutable_end()->add_prompts()->add_samples()->set_text("done");
    if (last.ok() && !messages.empty()) writer->Write(message);
    return last;
  }

  std::string Metadata(const std::string& key) {
    std::lock_guard<std::mutex> lock(mutex_);
    return metadata_[key];
  }

  std::vector<v1::FeaturesResponse> messages;
  grpc::Status last = grpc::Status::OK;
  // The first `failures` calls get `failure`.
  std::atomic<int> failures{0}, calls{0};
  grpc::Status failure{grpc::StatusCode::UNAVAILABLE, "draining"};

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> metadata_;
};

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&fake_);
    server_ = builder.BuildAndStart();
    auto client = Client::Connect("127.0.0.1:" + std::to_string(port));
    EXPECT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    request_.set_dictionary("m/d");
  }

  // A header that announces `bytes` bytes of values, then these chunks.
  void Answer(int64_t bytes, const std::vector<std::string>& chunks) {
    v1::FeaturesResponse first;
    v1::Tensor* values =
        first.mutable_header()->mutable_features()->mutable_values();
    values->set_dtype(v1::FLOAT32);
    values->add_shape(bytes / 4);
    first.mutable_header()->mutable_provenance()->set_chunked_bytes(bytes);
    fake_.messages = {first};
    for (const std::string& chunk : chunks) {
      fake_.messages.emplace_back().set_chunk(chunk);
    }
  }

  FakeServer fake_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Client> client_;
  v1::FeaturesRequest request_;
};

TEST_F(ClientTest, ChunksAreAssembled) {
  Answer(8, {"abc", "defgh"});
  const auto header = client_->GetFeatures(request_);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->features().values().data(), "abcdefgh");
}

TEST_F(ClientTest, MetadataForRouting) {
  Answer(0, {});
  ASSERT_TRUE(client_->GetFeatures(request_).ok());
  EXPECT_EQ(fake_.Metadata("cupola-model"), "m/d");
  EXPECT_EQ(fake_.Metadata("cupola-key"), RoutingKey(request_));
}

TEST_F(ClientTest, ANameThatNoHeaderCanHoldIsStillAsked) {
  Answer(0, {});
  request_.set_dictionary("caf\xc3\xa9");
  EXPECT_TRUE(client_->GetFeatures(request_).ok());
  EXPECT_EQ(fake_.Metadata("cupola-model"), "");
}

TEST_F(ClientTest, StreamsThatDoNotAddUp) {
  Answer(8, {"abc"});
  EXPECT_EQ(client_->GetFeatures(request_).status().code(),
            absl::StatusCode::kDataLoss);
  Answer(8, {"abcdefgh", "i"});
  EXPECT_EQ(client_->GetFeatures(request_).status().code(),
            absl::StatusCode::kDataLoss);
  Answer(int64_t{1} << 50, {});
  EXPECT_EQ(client_->GetFeatures(request_).status().code(),
            absl::StatusCode::kResourceExhausted);
  fake_.messages.clear();
  EXPECT_EQ(client_->GetFeatures(request_).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(ClientTest, TheServersErrorWins) {
  Answer(8, {"abc"});
  fake_.last = {grpc::StatusCode::INTERNAL, "the device is gone"};
  const auto header = client_->GetFeatures(request_);
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(header.status().message(), "the device is gone");
}

TEST_F(ClientTest, UnavailableIsRetried) {
  Answer(0, {});
  fake_.failures = 2;
  EXPECT_TRUE(client_->GetFeatures(request_).ok());
  EXPECT_EQ(fake_.calls, 3);
}

TEST_F(ClientTest, OtherErrorsAreNot) {
  fake_.failures = 1;
  fake_.failure = {grpc::StatusCode::RESOURCE_EXHAUSTED, "too large"};
  EXPECT_EQ(client_->GetFeatures(request_).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(fake_.calls, 1);
}

TEST_F(ClientTest, TokensComeOneByOne) {
  Answer(0, {});
  v1::GenerateRequest request;
  request.set_max_new_tokens(3);
  std::vector<uint32_t> ids;
  const auto take = [&](const v1::GenerateResponse::Token& token) {
    ids.push_back(token.chosen().id());
    return true;
  };
  const auto end = client_->Generate(request, take);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->prompts(0).samples(0).text(), "done");
  EXPECT_EQ(ids, (std::vector<uint32_t>{0, 1, 2}));
  fake_.messages.clear();  // no end
  EXPECT_EQ(client_->Generate(request, take).status().code(),
            absl::StatusCode::kDataLoss);
  fake_.last = {grpc::StatusCode::INVALID_ARGUMENT, "top_p is 2"};
  EXPECT_EQ(client_->Generate(request, take).status().message(), "top_p is 2");
}

TEST_F(ClientTest, ACallerWhoHasEnoughStopsTheServer) {
  v1::GenerateRequest request;
  request.set_max_new_tokens(4'000'000'000);  // ends only with the client
  int tokens = 0;
  const auto end = client_->Generate(
      request,
      [&](const v1::GenerateResponse::Token&) { return ++tokens < 5; });
  EXPECT_EQ(end.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(tokens, 5);
}

TEST_F(ClientTest, AServiceThatIsNotThere) {
  EXPECT_EQ(client_->List().status().code(), absl::StatusCode::kUnimplemented);
}

// gRPC ends the process over metadata that is not printable, as a token is
// that was read with its line's end.
TEST(ClientTokens, ThatCannotBeSentAreRefused) {
  for (const std::string& token :
       {std::string("secret\n"), std::string("sec\0ret", 7),
        std::string("s\xc3\xa9"
                    "cret"),
        std::string(2000, 'x')}) {
    ClientOptions options;
    options.token = token;
    const auto client = Client::Connect("127.0.0.1:1", options);
    ASSERT_FALSE(client.ok());
    EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(client.status().message());
    EXPECT_NE(message.find(std::to_string(token.size())), std::string::npos);
    EXPECT_EQ(message.find("cret"), std::string::npos) << message;
  }
}

TEST(ClientConnectTest, NobodyAnswers) {
  ClientOptions options;
  options.connect_timeout = absl::Milliseconds(50);
  // Port 1 is reserved (tcpmux) and not served.
  const auto client = Client::Connect("127.0.0.1:1", options);
  EXPECT_EQ(client.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(client.status().message()), HasSubstr("127.0.0.1:1"));
}

}  // namespace
}  // namespace cupola
