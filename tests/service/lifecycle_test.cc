// From the command line to serving: start, health, what is logged, loads that
// take long, cancellation, restart. How it ends is in drain_test.cc.

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/files/safetensors_file.h"
#include "tests/service/http_get.h"
#include "tests/service/lifecycle_fixture.h"

namespace cupola::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
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

TEST_F(LifecycleTest, ACatalogThatContradictsItselfServesTheRest) {
  std::ofstream(catalog_, std::ios::app) << R"pb(
    model { name: "x" path: "tiny" }
    model { name: "x" path: "tiny" }
    dictionary { name: "x/d" model: "x" path: "sae" }
    dictionary { name: "orphan" model: "nobody" path: "sae" }
  )pb";
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  server->WaitUntilReady();
  const auto client = server->Connect();
  EXPECT_TRUE(client->GetFeatures(FeaturesOf("the rest")).ok());
  const auto twice = client->Describe("x");
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_EQ(twice->model().state(), v1::FAILED);
  EXPECT_THAT(twice->model().failure(), HasSubstr("twice"));
  const auto of_it = client->Describe("x/d");
  ASSERT_TRUE(of_it.ok()) << of_it.status();
  EXPECT_EQ(of_it->dictionary().state(), v1::FAILED);
  const auto orphan = client->Describe("orphan");
  ASSERT_TRUE(orphan.ok()) << orphan.status();
  EXPECT_THAT(orphan->dictionary().failure(), HasSubstr("\"nobody\""));
  v1::FeaturesRequest request = FeaturesOf("whose?");
  request.set_dictionary("orphan");
  EXPECT_EQ(client->GetFeatures(request).status().code(),
            absl::StatusCode::kFailedPrecondition);
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

TEST_F(LifecycleTest, DeadlinesAndCancellationFreeTheDevice) {
  const auto server = StartSlow();
  ASSERT_NE(server, nullptr);
  ClientOptions hurried;
  hurried.deadline = absl::Milliseconds(20);
  const auto late = server->Connect(hurried)->GetActivations(LongWork('a'));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);

  Stream stream(*server, LongWork('0'));
  stream.Cancel();
  EXPECT_EQ(stream.ReadToTheEnd(), 0);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::CANCELLED);

  // Both have left the server, counted as what they were.
  for (const char* code : {"DEADLINE_EXCEEDED", "CANCELLED"}) {
    AwaitMetric(*server, std::string("cupola_requests_total{code=\"") + code +
                             "\",method=\"GetActivations\",model=\"slow\"} 1");
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
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0);
  EXPECT_THAT(ReadWhole(folder_ + "/log"), HasSubstr("\"no cache\""));
}

TEST_F(LifecycleTest, ACacheThatIsMovedAsideIsLogged) {
  const std::string cache = folder_ + "/cache";
  const auto run = [&] {
    const auto server = Start({"--cache_dir", cache});
    ASSERT_NE(server, nullptr);
    EXPECT_TRUE(server->Connect()->GetCacheStatistics()->enabled());
    server->Signal(SIGTERM);
    EXPECT_EQ(server->Wait(), 0);
  };
  run();
  EXPECT_THAT(ReadWhole(folder_ + "/log"), Not(HasSubstr("moved aside")));
  // Without its list of files the database cannot be opened.
  int damaged = 0;
  for (const auto& file : fs::directory_iterator(cache)) {
    if (file.path().filename().string().rfind("MANIFEST", 0) == 0) {
      std::ofstream(file.path()) << "garbage";
      ++damaged;
    }
  }
  ASSERT_GT(damaged, 0);
  run();
  EXPECT_THAT(ReadWhole(folder_ + "/log"),
              AllOf(HasSubstr("\"cache moved aside\""),
                    HasSubstr(cache + ".corrupt-")));
  EXPECT_TRUE(fs::exists(cache + "/CURRENT"));
}

TEST_F(LifecycleTest, ASelfCheckWarns) {
  // What is published of the dictionary is far from what is measured.
  std::ofstream(catalog_) << R"pb(
    model { name: "tiny" path: "tiny" }
    dictionary {
      name: "tiny/sae"
      model: "tiny"
      path: "sae"
      expect { l0: 3000 fvu: 0.001 }
    }
  )pb";
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  const v1::DictionaryInfo info = AwaitSelfCheck(*server);
  EXPECT_GT(info.measured().tokens(), 0);
  ASSERT_EQ(info.warnings_size(), 2);
  EXPECT_THAT(info.warnings(0),
              AllOf(StartsWith("L0 is "), HasSubstr("expected 3000")));
  EXPECT_THAT(info.warnings(1),
              AllOf(StartsWith("FVU is "), HasSubstr("expected 0.001")));
}

TEST_F(LifecycleTest, ASelfCheckThatFailsSaysSo) {
  // The sample texts are longer than what this server takes.
  const auto server = Start({"--max_tokens_per_request=8"});
  ASSERT_NE(server, nullptr);
  const v1::DictionaryInfo info = AwaitSelfCheck(*server);
  EXPECT_FALSE(info.has_measured());
  ASSERT_EQ(info.warnings_size(), 1);
  EXPECT_THAT(info.warnings(0),
              AllOf(StartsWith("not measured: "), HasSubstr("8")));
  // And serves all the same.
  EXPECT_EQ(info.state(), v1::RESIDENT);
  EXPECT_TRUE(server->Connect()->GetFeatures(FeaturesOf("short")).ok());
  const auto again = server->Connect()->SelfCheck("tiny/sae");
  EXPECT_EQ(again.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(LifecycleTest, ARequestWaitsForALoadUntilItsDeadline) {
  // Gigabytes to digest, though no disk holds them: a load of many seconds.
  AddTensorOfZeros(folder_ + "/tiny/model.safetensors", int64_t{1} << 33);
  const auto server = Start();
  ASSERT_NE(server, nullptr);
  ClientOptions hurried;
  hurried.deadline = absl::Milliseconds(50);
  const auto late =
      server->Connect(hurried)->GetFeatures(FeaturesOf("too soon"));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  Stream stream(*server, LargeRequest("hook_embed", 'A', "tiny"));
  AwaitMetric(*server, "cupola_requests_in_flight 1\n");
  stream.Cancel();
  // The server has let go of both, and the load goes on.
  AwaitMetric(*server,
              "cupola_requests_total{code=\"DEADLINE_EXCEEDED\","
              "method=\"GetFeatures\",model=\"\"} 1");
  AwaitMetric(*server,
              "cupola_requests_total{code=\"CANCELLED\","
              "method=\"GetActivations\",model=\"\"} 1");
  AwaitMetric(*server, "cupola_requests_in_flight 0\n");
  const auto entry = server->Connect()->Describe("tiny");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->model().state(), v1::LOADING);
}

}  // namespace
}  // namespace cupola::testing
