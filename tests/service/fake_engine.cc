#include "tests/service/fake_engine.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/engine.h"
#include "server/engine/executor.h"

namespace cupola::engine {
namespace {

constexpr int kThreads = 3;

template <typename T>
Array MakeArray(storage::DType dtype, const std::vector<T>& values) {
  Array array;
  array.dtype = dtype;
  array.shape = {static_cast<int64_t>(values.size())};
  array.bytes.assign(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
  return array;
}

const std::string& TextOf(const Prompts& prompts) {
  return prompts.prompts.front().text;
}

// Counts its chunks.
class FakeWork : public JobWork {
 public:
  uint32_t version() const override { return 1; }
  storage::Digest identity() const override { return {}; }
  JobProvenance provenance() const override { return {}; }
  absl::Status Begin() override { return absl::OkStatus(); }
  int64_t chunks() const override { return testing::kFakeChunks; }
  int64_t tokens(int64_t) const override { return 1; }
  absl::Status RunChunk(int64_t, const RequestContext& context) override {
    absl::SleepFor(absl::Microseconds(200));
    return StillWanted(context);
  }
  absl::Status Save(storage::StateWriter* state) const override {
    return state->AppendValue(int64_t{0});
  }
  absl::Status Restore(storage::StateReader* state) override {
    int64_t nothing = 0;
    return state->ReadValue(&nothing);
  }
  absl::Status Merge(const JobWork& /*later*/) override {
    return absl::OkStatus();
  }
};

}  // namespace

class Engine::Impl {
 public:
  Impl(const EngineOptions& given, Observer* told)
      : options(given), observer(told) {
    Jobs::Options jobs_options;
    jobs_options.directory = options.cache.directory;
    jobs_options.checkpoint = absl::Milliseconds(1);
    jobs_options.kinds[kAccumulateJacobian] = [](const std::string&,
                                                 const RequestContext&) {
      return absl::StatusOr<std::unique_ptr<JobWork>>(
          std::make_unique<FakeWork>());
    };
    jobs = Jobs::Open(std::move(jobs_options));
  }

  // Calls `answer` on a thread after a moment, if anybody still wants it.
  template <typename Answer, typename Make>
  void Later(RequestContext context, Done<Answer> done, Make make) {
    in_flight += 1;
    executor.Run([this, context = std::move(context), done = std::move(done),
                  make = std::move(make)] {
      absl::SleepFor(absl::Microseconds(100 + moment++ % 7 * 150));
      observer->OnBatch("cpu", 1, 1, 1e-4);
      in_flight -= 1;
      if (draining) {
        done(absl::UnavailableError("draining"));
      } else if (absl::Status wanted = StillWanted(context); !wanted.ok()) {
        done(std::move(wanted));
      } else {
        done(make());
      }
    });
  }

  const EngineOptions options;
  Observer* const observer;
  std::atomic<int64_t> in_flight{0};
  std::atomic<uint32_t> moment{0};
  std::atomic<bool> draining{false};
  std::unique_ptr<Jobs> jobs;
  Executor executor{kThreads};
};

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, Observer* observer) {
  return absl::WrapUnique(
      new Engine(std::make_unique<Impl>(options, observer)));
}
Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() { Drain(absl::Now()); }

void Engine::Drain(absl::Time) {
  impl_->jobs->Stop();
  impl_->draining = true;
  impl_->executor.Join();
}

void Engine::Tokenize(TokenizeRequest request, RequestContext context,
                      Done<TokenizeAnswer> done) {
  impl_->Later<TokenizeAnswer>(
      std::move(context), std::move(done),
      [text = TextOf(request.prompts)]() -> absl::StatusOr<TokenizeAnswer> {
        TokenizeAnswer answer;
        auto& tokens = answer.prompts.emplace_back();
        for (const char c : text) {
          tokens.ids.push_back(static_cast<unsigned char>(c));
          tokens.pieces.emplace_back(1, c);
        }
        tokens.text = text;
        return answer;
      });
}

void Engine::GetFeatures(FeaturesRequest request, RequestContext context,
                         Done<FeaturesAnswer> done) {
  impl_->Later<FeaturesAnswer>(
      std::move(context), std::move(done),
      [text = TextOf(*request.prompts)]() -> absl::StatusOr<FeaturesAnswer> {
        const auto entries = static_cast<size_t>(testing::FakeEntries(text));
        FeaturesAnswer answer;
        answer.features.columns = 64;
        answer.features.indptr = MakeArray<int64_t>(
            storage::DType::kInt64, {0, static_cast<int64_t>(entries)});
        answer.features.indices = MakeArray<uint32_t>(
            storage::DType::kUInt32, std::vector<uint32_t>(entries, 1));
        answer.features.values =
            MakeArray<float>(storage::DType::kFloat32,
                             std::vector<float>(entries, testing::kFakeValue));
        answer.prompt = MakeArray<int32_t>(storage::DType::kInt32, {0});
        answer.position = MakeArray<int32_t>(storage::DType::kInt32, {0});
        answer.provenance.model = "fake";
        return answer;
      });
}

void Engine::Generate(GenerateRequest request, RequestContext context,
                      Done<GenerateAnswer> done) {
  const RequestContext until = context;
  impl_->Later<GenerateAnswer>(
      std::move(context), std::move(done),
      [request = std::move(request),
       until]() -> absl::StatusOr<GenerateAnswer> {
        for (int64_t i = 0; i < request.max_new_tokens; ++i) {
          GeneratedPiece piece;
          piece.chosen.token = static_cast<int32_t>(i);
          piece.chosen.piece = "x";
          absl::Status wanted = request.sink(std::move(piece));
          if (wanted.ok()) wanted = StillWanted(until);
          if (!wanted.ok()) return wanted;
          if (i % 8 == 0) absl::SleepFor(absl::Microseconds(50));
        }
        GenerateAnswer answer;
        answer.texts = {
            {{request.max_new_tokens, analysis::Finish::kLength,
              std::string(static_cast<size_t>(request.max_new_tokens), 'x')}}};
        return answer;
      });
}

void Engine::AccumulateJacobian(AccumulateJacobianRequest, JobOptions options,
                                RequestContext context, Done<JobInfo> done) {
  impl_->Later<JobInfo>(
      std::move(context), std::move(done),
      [jobs = impl_->jobs.get(), options]() -> absl::StatusOr<JobInfo> {
        return jobs->Submit({kAccumulateJacobian, "fake", ""}, options,
                            FakeWork());
      });
}

void Engine::Load(const std::string& name, std::optional<model::Processing>,
                  RequestContext context, Done<std::string> done) {
  impl_->Later<std::string>(
      std::move(context), std::move(done), [impl = impl_.get(), name] {
        impl->observer->OnLoad(name, true, 0.1);
        impl->observer->OnResidentBytes(name, "model", 100);
        return absl::StatusOr<std::string>(name);
      });
}

std::vector<ModelStatus> Engine::Models() const {
  ModelStatus status;
  status.spec.name = "fake";
  status.state = State::kResident;
  return {status};
}
std::vector<DictionaryStatus> Engine::Dictionaries() const { return {}; }
absl::StatusOr<EntryStatus> Engine::Describe(const std::string& name) const {
  if (name != "fake") return absl::NotFoundError("there is fake alone");
  return EntryStatus(Models().front());
}

Jobs& Engine::jobs() { return *impl_->jobs; }
storage::ResultCacheStatistics Engine::CacheStatistics() const { return {}; }
std::string Engine::CacheDisabledReason() const { return ""; }
void Engine::ClearCache() {}
QueueDepths Engine::QueueDepth() const { return {impl_->in_flight, 0}; }
int64_t Engine::BytesInFlight() const { return impl_->in_flight; }
int64_t Engine::BudgetBytes() const { return 1 << 30; }
std::vector<std::string> Engine::Devices() const { return {"cpu"}; }
const EngineOptions& Engine::options() const { return impl_->options; }

}  // namespace cupola::engine
