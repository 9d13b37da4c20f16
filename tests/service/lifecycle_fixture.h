#ifndef CUPOLA_TESTS_SERVICE_LIFECYCLE_FIXTURE_H_
#define CUPOLA_TESTS_SERVICE_LIFECYCLE_FIXTURE_H_

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/files/tiny_model.h"
#include "tests/service/http_get.h"
#include "tests/service/server_fixture.h"

namespace cupola::testing {

// A scratch folder with the catalog of WriteTinyCatalog, and what tests of a
// server's life from start to end do with it.
class LifecycleTest : public ::testing::Test {
 protected:
  LifecycleTest()
      : folder_(MakeScratchFolder(
            ::testing::UnitTest::GetInstance()->current_test_info()->name())),
        catalog_(WriteTinyCatalog(folder_)) {}
  ~LifecycleTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<ServerProcess> Start(std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--catalog", catalog_, "--device=cpu"});
    return ServerProcess::Start(more, folder_ + "/log");
  }

  // A model of which 64 full prompts take many seconds.
  void AddSlowModel() {
    TinySizes sizes;
    sizes.n_layers = 24;
    sizes.d_model = 256;
    sizes.n_heads = 8;
    sizes.n_ctx = 1024;
    TinyGpt2(sizes).Write(folder_ + "/slow");
    std::ofstream(catalog_) << "model { name: \"slow\" path: \"slow\" }\n";
  }

  // A server that has the slow model.
  std::unique_ptr<ServerProcess> StartSlow(std::vector<std::string> more = {}) {
    AddSlowModel();
    auto server = Start(std::move(more));
    if (server != nullptr) server->WaitUntilReady();
    return server;
  }

  // 64 prompts of 1024 tokens: 64 MiB of one hook point. Before the first block
  // there is nothing to compute; after the last, some teraflops.
  static v1::ActivationsRequest LargeRequest(
      const std::string& hook, char letter, const std::string& model = "slow") {
    v1::ActivationsRequest request;
    request.set_model(model);
    request.add_hooks(hook);
    for (int i = 0; i < 64; ++i) {
      request.mutable_prompts()->add_prompts()->set_text(
          std::string(1023, static_cast<char>(letter + i % 26)));
    }
    return request;
  }
  static v1::ActivationsRequest LargeAnswer() {
    return LargeRequest("hook_embed", 'A');
  }
  static v1::ActivationsRequest LongWork(char letter) {
    return LargeRequest("blocks.23.hook_resid_post", letter);
  }

  // A call, as gRPC has it, without what our client adds.
  class Stream {
   public:
    Stream(const ServerProcess& server, const v1::ActivationsRequest& request)
        : stub_(grpc::CreateChannel(server.address(),
                                    grpc::InsecureChannelCredentials())),
          reader_(stub_.GetActivations(&context_, request)) {}

    bool Read(v1::ActivationsResponse* message) {
      return reader_->Read(message);
    }
    void Cancel() { context_.TryCancel(); }
    // The bytes of the chunks that come until the end.
    int64_t ReadToTheEnd() {
      int64_t bytes = 0;
      for (v1::ActivationsResponse message; Read(&message);) {
        bytes += message.chunk().size();
      }
      return bytes;
    }
    grpc::Status Finish() { return reader_->Finish(); }

   private:
    v1::Analysis::Stub stub_;
    grpc::ClientContext context_;
    std::unique_ptr<grpc::ClientReader<v1::ActivationsResponse>> reader_;
  };

  // Opens a large answer and reads its first message; how many bytes follow.
  static int64_t ReadHeader(Stream* stream) {
    v1::ActivationsResponse message;
    EXPECT_TRUE(stream->Read(&message));
    return message.header().provenance().chunked_bytes();
  }

  // What is known of tiny/sae once it has been measured, or could not be.
  static v1::DictionaryInfo AwaitSelfCheck(const ServerProcess& server) {
    server.WaitUntilReady();
    const auto client = server.Connect();
    while (true) {
      const auto entry = client->Describe("tiny/sae");
      EXPECT_TRUE(entry.ok()) << entry.status();
      if (!entry.ok() || entry->dictionary().has_measured() ||
          entry->dictionary().warnings_size() > 0) {
        return entry->dictionary();
      }
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  // Returns when a metrics page shows this line.
  static void AwaitMetric(const ServerProcess& server,
                          const std::string& line) {
    while (HttpGet(server.http_port(), "/metrics").find(line) ==
           std::string::npos) {
      absl::SleepFor(absl::Milliseconds(2));
    }
  }

  const std::string folder_;
  const std::string catalog_;
};

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_LIFECYCLE_FIXTURE_H_
