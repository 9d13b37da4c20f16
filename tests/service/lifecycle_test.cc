// From the command line to the end: start, health, cancellation, drain,
// restart.

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/service/http_get.h"
#include "tests/service/server_fixture.h"
#include "tests/service/tiny_model.h"

namespace cupola::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// grpc.health.v1.Health/Check by hand: the status (1 is SERVING, 2 is
// NOT_SERVING) from HealthCheckResponse { status = 1 }; -1 for an error.
int Health(const std::string& address, const std::string& service) {
  const auto channel =
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  std::string request;
  if (!service.empty()) {
    request = std::string("\x0a") + static_cast<char>(service.size()) + service;
  }
  const grpc::Slice slice(request);
  const grpc::ByteBuffer bytes(&slice, 1);
  const auto call = stub.PrepareUnaryCall(
      &context, "/grpc.health.v1.Health/Check", bytes, &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  std::vector<grpc::Slice> slices;
  if (!status.ok() || !response.Dump(&slices).ok() || slices.empty() ||
      slices[0].size() != 2) {
    return -1;
  }
  return slices[0].begin()[1];
}

class LifecycleTest : public ::testing::Test {
 protected:
  LifecycleTest()
      : folder_(MakeScratchFolder(
            ::testing::UnitTest::GetInstance()->current_test_info()->name())),
        catalog_(WriteTinyCatalog(folder_)) {}
  ~LifecycleTest() override { fs::remove_all(folder_); }

  std::unique_ptr<ServerProcess> Start(std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--catalog", catalog_, "--device=cpu"});
    return ServerProcess::Start(more, folder_ + "/log");
  }

  // A model of which 64 full prompts take many seconds.
  void AddSlowModel() {
    TinyGpt2 sizes;
    sizes.n_layers = 24;
    sizes.d_model = 256;
    sizes.n_heads = 8;
    sizes.n_ctx = 1024;
    WriteTinyGpt2(folder_ + "/slow", sizes);
    std::ofstream(catalog_) << "model { name: \"slow\" path: \"slow\" }\n";
  }

  // 64 prompts of 1024 tokens: 64 MiB of one hook point. Before the first block
  // there is nothing to compute; after the last, some teraflops.
  static v1::ActivationsRequest LargeRequest(const std::string& hook,
                                             char letter) {
    v1::ActivationsRequest request;
    request.set_model("slow");
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

  const std::string folder_;
  const std::string catalog_;
};

TEST_F(LifecycleTest, HelpVersionAndBadFlags) {
  RunResult help = RunServer({"--help"}, folder_);
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.output, HasSubstr("--cache_bytes"));
  RunResult version = RunServer({"--version"}, folder_);
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.output, StartsWith("cupola_server "));
  RunResult unknown = RunServer({"--colour=red"}, folder_);
  EXPECT_EQ(unknown.code, 2);
  EXPECT_EQ(unknown.error, "cupola_server: --colour is unknown; see --help\n");
  EXPECT_EQ(unknown.output, "");
}

TEST_F(LifecycleTest, StartsThatFailSayWhy) {
  RunResult missing = RunServer({"--catalog=" + folder_ + "/none"}, folder_);
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.error, HasSubstr("/none"));

  std::ofstream(folder_ + "/bad") << "model { nam: \"x\" }";
  RunResult bad = RunServer({"--catalog=" + folder_ + "/bad"}, folder_);
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.error, HasSubstr("/bad:1:"));

  std::ofstream(folder_ + "/twice") << "model { name: \"x\" path: \"tiny\" }"
                                       "model { name: \"x\" path: \"tiny\" }";
  RunResult twice = RunServer({"--catalog=" + folder_ + "/twice"}, folder_);
  EXPECT_EQ(twice.code, 1);
  EXPECT_THAT(twice.error, HasSubstr("\"x\""));

  RunResult outside = RunServer(
      {"--catalog", catalog_, "--model_root", folder_ + "/sae"}, folder_);
  EXPECT_EQ(outside.code, 1);
  EXPECT_THAT(outside.error, HasSubstr("model root"));

  const auto running = Start();
  ASSERT_NE(running, nullptr);
  RunResult taken = RunServer(
      {"--catalog", catalog_, "--http=off", "--listen", running->address()},
      folder_);
  EXPECT_EQ(taken.code, 1);
  EXPECT_THAT(taken.error, HasSubstr(running->address()));
}

TEST_F(LifecycleTest, HealthFollowsTheCatalog) {
  AddSlowModel();
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  // Live at once; serving only with the catalog, which may be there by now.
  EXPECT_THAT(HttpGet(server->http_port(), "/healthz"),
              StartsWith("HTTP/1.1 200"));
  server->WaitUntilReady();
  for (const char* service :
       {"", "cupola.v1.Analysis", "cupola.v1.Catalog", "cupola.v1.Admin"}) {
    while (Health(server->address(), service) != 1) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  EXPECT_EQ(Health(server->address(), "cupola.v1.Nothing"), -1);
}

TEST_F(LifecycleTest, ReflectionIsBehindItsFlag) {
  const auto supports = [](const ServerProcess& server) {
    const auto channel = grpc::CreateChannel(
        server.address(), grpc::InsecureChannelCredentials());
    grpc::GenericStub stub(channel);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    // ServerReflectionRequest { list_services = 7: "" }
    const grpc::Slice slice(std::string("\x3a\x00", 2));
    const grpc::ByteBuffer request(&slice, 1);
    const auto call = stub.PrepareUnaryCall(
        &context,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request, &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    return status.error_code() != grpc::StatusCode::UNIMPLEMENTED;
  };
  const auto without = Start();
  ASSERT_NE(without, nullptr);
  EXPECT_FALSE(supports(*without));
  const auto with = Start({"--reflection"});
  ASSERT_NE(with, nullptr);
  EXPECT_TRUE(supports(*with));
}

TEST_F(LifecycleTest, SigtermEndsWithZero) {
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  ASSERT_TRUE(server->Connect()->List().ok());
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0);
  EXPECT_THAT(ReadWhole(folder_ + "/log"), HasSubstr("\"draining\""));
}

TEST_F(LifecycleTest, SigintWhileLoadingEndsWithZero) {
  AddSlowModel();
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->Signal(SIGINT);
  EXPECT_EQ(server->Wait(), 0);
}

TEST_F(LifecycleTest, ADrainLetsAStreamFinish) {
  AddSlowModel();
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  v1::Analysis::Stub stub(grpc::CreateChannel(
      server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto reader = stub.GetActivations(&context, LargeAnswer());
  v1::ActivationsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  const int64_t announced = message.header().provenance().chunked_bytes();
  EXPECT_GT(announced, 60 << 20);
  // The stream is open and most of it unread: now the server is told to end.
  server->Signal(SIGTERM);
  while (!HttpGet(server->http_port(), "/readyz").empty() &&
         HttpGet(server->http_port(), "/readyz").rfind("HTTP/1.1 200", 0) ==
             0) {
  }
  int64_t got = 0;
  while (reader->Read(&message)) got += message.chunk().size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(got, announced);
  EXPECT_EQ(server->Wait(), 0);
}

TEST_F(LifecycleTest, ADrainEndsWhatDoesNotFinish) {
  AddSlowModel();
  const auto server = Start({"--drain_seconds=0"});
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  v1::Analysis::Stub stub(grpc::CreateChannel(
      server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto reader = stub.GetActivations(&context, LargeAnswer());
  v1::ActivationsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server->Signal(SIGTERM);  // and nobody reads
  EXPECT_EQ(server->Wait(), 0);
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(LifecycleTest, ASecondSignalEndsAtOnce) {
  AddSlowModel();
  const auto server = Start({"--drain_seconds=3600"});
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  v1::Analysis::Stub stub(grpc::CreateChannel(
      server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto reader = stub.GetActivations(&context, LargeAnswer());
  v1::ActivationsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server->Signal(SIGTERM);
  while (ReadWhole(folder_ + "/log").find("\"draining\"") ==
         std::string::npos) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), -SIGTERM);
}

TEST_F(LifecycleTest, DeadlinesAndCancellationFreeTheDevice) {
  AddSlowModel();
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  ClientOptions hurried;
  hurried.deadline = absl::Milliseconds(20);
  const auto late = server->Connect(hurried)->GetActivations(LongWork('a'));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);

  v1::Analysis::Stub stub(grpc::CreateChannel(
      server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto reader = stub.GetActivations(&context, LongWork('0'));
  context.TryCancel();
  v1::ActivationsResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);

  // Both have left the server, counted as what they were.
  for (const char* code : {"DEADLINE_EXCEEDED", "CANCELLED"}) {
    const std::string sample = std::string("cupola_requests_total{code=\"") +
                               code + "\",method=\"GetActivations\"} 1";
    while (HttpGet(server->http_port(), "/metrics").find(sample) ==
           std::string::npos) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  EXPECT_THAT(HttpGet(server->http_port(), "/metrics"),
              HasSubstr("cupola_requests_in_flight 0"));
}

TEST_F(LifecycleTest, TheCacheOutlivesAKill) {
  // Without the check at load, which has answers of its own to keep.
  const std::vector<std::string> flags = {"--cache_dir", folder_ + "/cache",
                                          "--no-self_check"};
  const v1::FeaturesRequest request = FeaturesOf("remember me");
  std::string features;
  {
    const auto server = Start(flags);
    ASSERT_NE(server, nullptr);
    const auto client = server->Connect();
    const auto first = client->GetFeatures(request);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_FALSE(first->provenance().from_cache());
    features = first->features().SerializeAsString();
    // On its way to the disk in the background, as the self check's answers may
    // be: wait until all that missed has been written.
    const auto written = [&client] {
      const auto statistics = client->GetCacheStatistics();
      return statistics->inserts() == statistics->misses();
    };
    while (!written()) absl::SleepFor(absl::Milliseconds(1));
    server->Signal(SIGKILL);
    EXPECT_EQ(server->Wait(), -SIGKILL);
  }
  const auto server = Start(flags);
  ASSERT_NE(server, nullptr);
  const auto again = server->Connect()->GetFeatures(request);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->provenance().from_cache());
  EXPECT_EQ(again->features().SerializeAsString(), features);
}

TEST_F(LifecycleTest, ACacheThatCannotBeDoesNotStopTheServer) {
  std::ofstream(folder_ + "/file") << "not a folder";
  const auto server = Start({"--cache_dir", folder_ + "/file/cache"});
  ASSERT_NE(server, nullptr);
  const auto client = server->Connect();
  EXPECT_TRUE(client->GetFeatures(FeaturesOf("uncached")).ok());
  const auto statistics = client->GetCacheStatistics();
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  EXPECT_FALSE(statistics->enabled());
  EXPECT_FALSE(statistics->disabled_reason().empty());
}

}  // namespace
}  // namespace cupola::testing
