// The services over an engine that answers at once: calls of all kinds, and
// their cancellation, deadlines, metrics, tokens and the drain, all at the same
// time. What ThreadSanitizer looks at (tests/sanitize.sh); each answer is
// checked as well.

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cupola/v1/admin.grpc.pb.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "cupola/v1/catalog.grpc.pb.h"
#include "cupola/v1/jobs.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/service/access.h"
#include "server/service/metrics.h"
#include "server/service/server.h"
#include "tests/service/fake_engine.h"

namespace cupola::testing {
namespace {

constexpr char kToken[] = "a-token";

class ServiceThreadsTest : public ::testing::Test {
 protected:
  ServiceThreadsTest()
      : folder_((std::filesystem::temp_directory_path() /
                 absl::StrCat("cupola_threads_", ::getpid()))
                    .string()),
        metrics_("1", "none") {
    std::filesystem::create_directories(folder_);
    WriteTokens("someone");
    service::AccessOptions access_options;
    access_options.tokens = folder_ + "/tokens";
    access_ = *service::Access::Create(std::move(access_options));
    engine::EngineOptions options;
    options.cache.directory = folder_ + "/jobs";
    engine_ = *engine::Engine::Create(options, &metrics_);
    metrics_.SetGauges([this] {
      service::Gauges gauges;
      gauges.queued = engine_->QueueDepth().interactive;
      gauges.bytes_in_flight = engine_->BytesInFlight();
      return gauges;
    });
    service::ServerOptions server_options;
    server_options.port = 0;
    server_options.access = access_.get();
    server_ = *service::Server::Start(server_options, engine_.get(), &metrics_);
    server_->SetServing(true);
  }
  ~ServiceThreadsTest() override {
    metrics_.SetGauges(nullptr);
    server_.reset();
    engine_.reset();
    std::filesystem::remove_all(folder_);
  }

  void WriteTokens(const std::string& name) const {
    const service::TokenHash hash = service::HashToken(kToken);
    // In one go: a file that is read while it is written would be broken.
    const std::string part = folder_ + "/tokens.part";
    std::ofstream(part) << name << " admin "
                        << absl::BytesToHexString(absl::string_view(
                               reinterpret_cast<const char*>(hash.data()),
                               hash.size()))
                        << "\n";
    std::filesystem::rename(part, folder_ + "/tokens");
  }

  const std::string folder_;
  service::Metrics metrics_;
  std::unique_ptr<service::Access> access_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<service::Server> server_;
};

// One client, with a connection of its own.
class Caller {
 public:
  Caller(int port, uint32_t seed) : random_(seed) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel = grpc::CreateCustomChannel(
        absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(),
        arguments);
    analysis_ = v1::Analysis::NewStub(channel);
    admin_ = v1::Admin::NewStub(channel);
    catalog_ = v1::Catalog::NewStub(channel);
    jobs_ = v1::Jobs::NewStub(channel);
  }

  // One call of any kind. UNAVAILABLE: the server is draining.
  grpc::Status CallAny() {
    switch (random_() % 9) {
      case 0:
        return Tokenize();
      case 1:
        return Features("some text", false);
      case 2:
        return Features("Large", false);
      case 3:
        return Features("Large", true);
      case 4:
        return Generate(false);
      case 5:
        return Generate(true);
      case 6:
        return Hurried();
      case 7:
        return Look();
      default:
        return Job();
    }
  }

 private:
  static std::unique_ptr<grpc::ClientContext> Context(
      const char* token = kToken) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->AddMetadata("authorization", absl::StrCat("Bearer ", token));
    return context;
  }

  grpc::Status Tokenize() {
    const auto context = Context();
    v1::TokenizeRequest request;
    request.set_model("fake");
    request.mutable_prompts()->add_prompts()->set_text("abc");
    v1::TokenizeResponse answer;
    grpc::Status status = analysis_->Tokenize(context.get(), request, &answer);
    if (status.ok()) {
      EXPECT_EQ(answer.prompts(0).ids_size(), 3);
    }
    return status;
  }

  grpc::Status Features(const std::string& text, bool cancel) {
    const auto context = Context();
    v1::FeaturesRequest request;
    request.set_dictionary("fake/sae");
    request.mutable_prompts()->add_prompts()->set_text(text);
    const auto reader = analysis_->GetFeatures(context.get(), request);
    v1::FeaturesResponse message;
    int64_t chunked = 0, expected = 0;
    while (reader->Read(&message)) {
      if (cancel) {
        context->TryCancel();
        while (reader->Read(&message)) {
        }
        break;
      }
      if (message.has_header()) {
        expected = message.header().provenance().chunked_bytes();
        EXPECT_EQ(message.header().features().values().shape(0),
                  FakeEntries(text));
      }
      chunked += static_cast<int64_t>(message.chunk().size());
    }
    grpc::Status status = reader->Finish();
    if (cancel) return Without(grpc::StatusCode::CANCELLED, status);
    if (status.ok()) {
      EXPECT_EQ(chunked, expected);
    }
    return status;
  }

  grpc::Status Generate(bool cancel) {
    const auto context = Context();
    v1::GenerateRequest request;
    request.set_model("fake");
    request.mutable_prompts()->add_prompts()->set_text("a");
    request.set_max_new_tokens(100);
    const auto reader = analysis_->Generate(context.get(), request);
    v1::GenerateResponse message;
    int tokens = 0;
    while (reader->Read(&message)) {
      tokens += message.tokens_size();
      if (cancel) context->TryCancel();
    }
    grpc::Status status = reader->Finish();
    if (cancel) return Without(grpc::StatusCode::CANCELLED, status);
    if (status.ok()) {
      EXPECT_EQ(tokens, 100);
    }
    return status;
  }

  grpc::Status Hurried() {
    const auto context = Context();
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::microseconds(random_() % 2000));
    v1::TokenizeRequest request;
    request.set_model("fake");
    request.mutable_prompts()->add_prompts()->set_text("abc");
    v1::TokenizeResponse answer;
    return Without(grpc::StatusCode::DEADLINE_EXCEEDED,
                   analysis_->Tokenize(context.get(), request, &answer));
  }

  grpc::Status Look() {
    v1::ServerInfo info;
    grpc::Status status = admin_->GetServerInfo(Context().get(), {}, &info);
    if (!status.ok()) return status;
    v1::LoadRequest load;
    load.set_name("fake");
    v1::DescribeResponse entry;
    status = catalog_->Load(Context().get(), load, &entry);
    if (!status.ok()) return status;
    EXPECT_EQ(entry.model().name(), "fake");
    v1::ListResponse entries;
    status = catalog_->List(Context("another").get(), {}, &entries);
    EXPECT_FALSE(status.ok());
    return Without(grpc::StatusCode::UNAUTHENTICATED, status);
  }

  // Submits a job, watches it for a while, cancels and deletes it.
  grpc::Status Job() {
    v1::AccumulateJacobianRequest request;
    request.mutable_jacobian()->set_dictionary("fake/sae");
    request.mutable_jacobian()->mutable_prompts()->add_prompts()->set_text("a");
    v1::Job job;
    grpc::Status status =
        jobs_->AccumulateJacobian(Context().get(), request, &job);
    if (!status.ok()) return status;
    v1::JobId id;
    id.set_id(job.id());
    {
      const auto context = Context();
      const auto reader = jobs_->Watch(context.get(), id);
      v1::Job seen;
      int64_t done = 0;
      const bool to_the_end = random_() % 2 == 0;
      while (reader->Read(&seen)) {
        EXPECT_GE(seen.chunks_done(), done);
        done = seen.chunks_done();
        if (!to_the_end && done > 2) context->TryCancel();
      }
      status = Without(grpc::StatusCode::CANCELLED, reader->Finish());
      if (!status.ok()) return status;
    }
    // Not of one that is done.
    status = Without(grpc::StatusCode::FAILED_PRECONDITION,
                     jobs_->Cancel(Context().get(), id, &job));
    if (!status.ok()) return status;
    v1::DeleteJobResponse deleted;
    while (true) {
      status = jobs_->Delete(Context().get(), id, &deleted);
      if (status.error_code() != grpc::StatusCode::FAILED_PRECONDITION) break;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return status;
  }

  static grpc::Status Without(grpc::StatusCode code,
                              const grpc::Status& status) {
    return status.error_code() == code ? grpc::Status::OK : status;
  }

  std::minstd_rand random_;
  std::unique_ptr<v1::Analysis::Stub> analysis_;
  std::unique_ptr<v1::Admin::Stub> admin_;
  std::unique_ptr<v1::Catalog::Stub> catalog_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
};

TEST_F(ServiceThreadsTest, EverythingAtOnce) {
  constexpr int kCallers = 6, kCalls = 60;
  std::atomic<bool> draining{false}, ended{false};
  std::atomic<int> answered{0};
  std::vector<std::thread> callers;
  for (uint32_t i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] {
      Caller caller(server_->port(), i + 1);
      while (true) {
        const bool might_fail = draining;
        const grpc::Status status = caller.CallAny();
        if (status.ok()) {
          ++answered;
        } else if (might_fail || draining) {
          EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE)
              << status.error_message();
          return;
        } else {
          ADD_FAILURE() << status.error_code() << status.error_message();
          return;
        }
      }
    });
  }
  std::thread looker([&] {
    for (int i = 0; !ended; ++i) {
      EXPECT_NE(metrics_.Text().find("cupola_requests_in_flight"),
                std::string::npos);
      WriteTokens(absl::StrCat("name", i % 2));
      absl::SleepFor(absl::Milliseconds(20));
    }
  });
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  while (answered < kCallers * kCalls && absl::Now() < limit && !HasFailure()) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  // As main ends a server, with the calls still coming.
  draining = true;
  engine_->jobs().Interrupt();
  server_->Drain(absl::Now() + absl::Seconds(30));
  engine_->Drain(absl::Now());
  server_->Shutdown();
  for (std::thread& caller : callers) caller.join();
  ended = true;
  looker.join();
  EXPECT_GE(answered, kCallers * kCalls);
  EXPECT_NE(metrics_.Text().find("cupola_requests_in_flight 0"),
            std::string::npos);
}

}  // namespace
}  // namespace cupola::testing
