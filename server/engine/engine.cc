#include "server/engine/engine.h"

#include <atomic>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/ask_ablate.h"
#include "server/engine/ask_activations.h"
#include "server/engine/ask_attribution.h"
#include "server/engine/ask_features.h"
#include "server/engine/ask_quality.h"
#include "server/engine/ask_reconstruct.h"
#include "server/engine/ask_run.h"
#include "server/engine/ask_tokenize.h"
#include "server/engine/ask_weights.h"
#include "server/engine/catalog.h"
#include "server/engine/device_worker.h"
#include "server/engine/executor.h"
#include "server/engine/numerics.h"
#include "server/engine/part.h"
#include "server/engine/request_runner.h"
#include "server/engine/self_check.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::engine {

// Members are destroyed in reverse order: the workers and the loader stop
// before what their callbacks use.
class Engine::Impl {
 public:
  Impl(EngineOptions options, Observer* observer)
      : options_(std::move(options)), observer_(observer) {}

  ~Impl() { Drain(absl::Now()); }

  absl::Status Start();

  // Counts a request in, refuses it when draining, and runs `body` on the front
  // executor. The wrapped `done` counts it out.
  template <typename Answer, typename Body>
  void Admit(const RequestContext& context, Done<Answer> done, Body body);

  // Opens what a request names, asks, runs and answers: one request's way.
  template <typename Request, typename Answer>
  void Analyse(Request request, RequestContext context, Done<Answer> done,
               absl::StatusOr<Question> (*ask)(const Request&, const Sources&,
                                               const Limits&),
               Answer (*answer)(const Question&, Answered));

  void OpenModel(const std::string& name, const RequestContext& context,
                 Catalog::Done<Sources> done);
  void OpenDictionary(const std::string& name, const RequestContext& context,
                      Catalog::Done<Sources> done);
  void TabulateAblations(AblationTableRequest request,
                         const RequestContext& context,
                         Done<AblationTableAnswer> done);
  // Adds the dictionaries of a request that names any number of them.
  void OpenOthers(std::vector<std::string> names, const RequestContext& context,
                  Sources sources, Catalog::Done<Sources> done);

  void LoadEverything();
  // Measures a dictionary as requests would and notes what comes of it.
  void CheckDictionary(const std::string& entry, const RequestContext& context,
                       std::function<void(absl::Status)> done);
  void Drain(absl::Time deadline);

  Limits limits() const {
    return {options_.max_tokens_per_request, options_.max_answer_bytes};
  }

  const EngineOptions options_;
  Observer* const observer_;
  std::string cache_disabled_reason_;
  std::unique_ptr<storage::ResultCache> cache_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<RequestRunner> runner_;
  std::map<std::string, std::unique_ptr<DeviceWorker>> workers_;
  std::unique_ptr<Executor> front_;

  const RequestContext unasked_;  // of what nobody has requested
  std::atomic<int> loads_left_{0};
  std::atomic<bool> draining_{false};
  absl::Mutex mu_;
  int64_t in_flight_ ABSL_GUARDED_BY(mu_) = 0;
};

absl::Status Engine::Impl::Start() {
  const std::string device = ResolveDevice(options_.device);
  if (device.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no device \"", options_.device, "\" here; use auto, cpu or cuda:N"));
  }
  ASSIGN_OR_RETURN(catalog_,
                   Catalog::Create(options_.catalog, device, observer_));
  if (options_.cache.directory.empty()) {
    cache_disabled_reason_ = "no cache directory was given";
  } else {
    auto cache = storage::ResultCache::Open(options_.cache);
    // A server without a cache is slower, not wrong.
    if (cache.ok()) {
      cache_ = *std::move(cache);
    } else {
      cache_disabled_reason_ = std::string(cache.status().message());
    }
  }
  front_ = std::make_unique<Executor>(options_.front_threads);
  for (const std::string& name : catalog_->Devices()) {
    workers_[name] = std::make_unique<DeviceWorker>(
        name, options_.max_queued_prompts, options_.batch_tokens, observer_);
  }
  runner_ = std::make_unique<RequestRunner>(catalog_.get(), cache_.get(),
                                            &workers_, front_.get(), observer_);
  LoadEverything();
  return absl::OkStatus();
}

void Engine::Impl::LoadEverything() {
  const CatalogSpec& spec = options_.catalog;
  loads_left_ = spec.models.size() + spec.dictionaries.size();
  // A model all of whose dictionaries are folded is not also loaded raw.
  for (const ModelSpec& model : spec.models) {
    std::optional<model::Processing> processing;
    for (const DictionarySpec& dictionary : spec.dictionaries) {
      if (dictionary.model != model.name) continue;
      const auto wanted =
          dictionary.overrides.processing.value_or(model::Processing::kRaw);
      if (!processing.has_value() || wanted == model::Processing::kRaw) {
        processing = wanted;
      }
    }
    catalog_->Load(model.name, processing, unasked_,
                   [this](absl::StatusOr<std::string>) { --loads_left_; });
  }
  for (const DictionarySpec& dictionary : spec.dictionaries) {
    const auto loaded = [this](absl::StatusOr<std::string> name) {
      --loads_left_;
      if (!name.ok() || !options_.self_check) return;
      CheckDictionary(*name, unasked_, [this, entry = *name](absl::Status s) {
        if (s.ok()) return;
        catalog_->SetMeasured(
            entry, {{}, {}, {absl::StrCat("not measured: ", s.message())}});
      });
    };
    catalog_->Load(dictionary.name, std::nullopt, unasked_, loaded);
  }
}

template <typename Answer, typename Body>
void Engine::Impl::Admit(const RequestContext& context, Done<Answer> done,
                         Body body) {
  {
    absl::MutexLock lock(&mu_);
    ++in_flight_;
  }
  Done<Answer> counted =
      [this, done = std::move(done)](absl::StatusOr<Answer> answer) {
        done(std::move(answer));
        absl::MutexLock lock(&mu_);
        --in_flight_;
      };
  front_->Run([this, context, counted, body = std::move(body)] {
    if (draining_) {
      return counted(absl::UnavailableError("the server is shutting down"));
    }
    if (absl::Status wanted = StillWanted(context); !wanted.ok()) {
      return counted(wanted);
    }
    body(counted);
  });
}

void Engine::Impl::OpenModel(const std::string& name,
                             const RequestContext& context,
                             Catalog::Done<Sources> done) {
  const auto opened = [this, name, done = std::move(done)](
                          absl::StatusOr<ModelSourcePtr> model) {
    if (!model.ok()) return done(model.status());
    Sources sources;
    sources.model_name = name;
    sources.model = *std::move(model);
    sources.dtype = catalog_->DtypeOf(name);
    done(std::move(sources));
  };
  catalog_->AcquireModelSource(name, context, opened);
}

void Engine::Impl::OpenDictionary(const std::string& name,
                                  const RequestContext& context,
                                  Catalog::Done<Sources> done) {
  const std::string entry = ParseDictionaryName(name).entry;
  const auto opened = [=, this, done = std::move(done)](
                          absl::StatusOr<DictionarySourcePtr> dictionary) {
    if (!dictionary.ok()) return done(dictionary.status());
    OpenModel(catalog_->ModelOf(entry), context,
              [=](absl::StatusOr<Sources> sources) {
                if (sources.ok()) {
                  sources->dictionary_name = name;
                  sources->dictionary = *dictionary;
                }
                done(std::move(sources));
              });
  };
  catalog_->AcquireDictionarySource(entry, context, opened);
}

void Engine::Impl::OpenOthers(std::vector<std::string> names,
                              const RequestContext& context, Sources sources,
                              Catalog::Done<Sources> done) {
  if (names.empty()) return done(std::move(sources));
  const std::string name = std::move(names.back());
  names.pop_back();
  OpenDictionary(
      name, context, [=, this](absl::StatusOr<Sources> opened) mutable {
        if (!opened.ok()) return done(opened.status());
        sources.others[name] = {opened->model_name, opened->dictionary};
        OpenOthers(std::move(names), context, std::move(sources), done);
      });
}

template <typename Request, typename Answer>
void Engine::Impl::Analyse(Request request, RequestContext context,
                           Done<Answer> done,
                           absl::StatusOr<Question> (*ask)(const Request&,
                                                           const Sources&,
                                                           const Limits&),
                           Answer (*answer)(const Question&, Answered)) {
  // Shared, since the steps below copy what they capture.
  auto asked = std::make_shared<const Request>(std::move(request));
  Admit<Answer>(context, std::move(done), [=, this](Done<Answer> done) {
    const auto opened = [=, this](absl::StatusOr<Sources> sources) {
      if (!sources.ok()) return done(sources.status());
      // A waiter may be called by the loading thread: tokenize elsewhere.
      front_->Run([=, this, sources = *std::move(sources)] {
        absl::StatusOr<Question> made = ask(*asked, sources, limits());
        if (!made.ok()) return done(made.status());
        auto question = std::make_shared<const Question>(*std::move(made));
        runner_->Run(question, context, [=](absl::StatusOr<Answered> answered) {
          if (!answered.ok()) return done(answered.status());
          done(model::CatchTorch(
              "assembling an answer", [&]() -> absl::StatusOr<Answer> {
                return answer(*question, *std::move(answered));
              }));
        });
      });
    };
    if constexpr (requires { OtherDictionaries(*asked); }) {
      OpenModel(asked->model, context, [=, this](auto sources) {
        if (!sources.ok()) return done(sources.status());
        OpenOthers(OtherDictionaries(*asked), context, *std::move(sources),
                   opened);
      });
    } else if constexpr (!requires { asked->dictionary; }) {
      OpenModel(asked->model, context, opened);
    } else if constexpr (!requires { asked->model; }) {
      OpenDictionary(asked->dictionary, context, opened);
    } else if (asked->dictionary.empty()) {
      OpenModel(asked->model, context, opened);
    } else {
      OpenDictionary(asked->dictionary, context, opened);
    }
  });
}

// Features of all prompts, then the ablations they call for in both modes.
void Engine::Impl::TabulateAblations(AblationTableRequest request,
                                     const RequestContext& context,
                                     Done<AblationTableAnswer> done) {
  if (absl::Status status = CheckAblationTable(request); !status.ok()) {
    return front_->Run([=] { done(status); });
  }
  const auto ablate = [=, this](AblateRequest ablate, Done<AblateAnswer> then) {
    Analyse<AblateRequest, AblateAnswer>(
        std::move(ablate), context, std::move(then), AskAblate, AnswerAblate);
  };
  const auto fired = [=](absl::StatusOr<FeaturesAnswer> features) {
    if (!features.ok()) return done(features.status());
    absl::StatusOr<AblationPlan> plan = PlanAblations(request, *features);
    if (!plan.ok()) return done(plan.status());
    if (plan->ablate.prompts.prompts.empty()) {
      return done(Tabulate(*plan, *features, std::nullopt, std::nullopt));
    }
    ablate(plan->ablate, [=](absl::StatusOr<AblateAnswer> subtracted) {
      if (!subtracted.ok()) return done(subtracted.status());
      AblateRequest second = plan->ablate;
      second.mode = analysis::AblateMode::kReconstruct;
      ablate(std::move(second), [=](absl::StatusOr<AblateAnswer> rebuilt) {
        if (!rebuilt.ok()) return done(rebuilt.status());
        done(Tabulate(*plan, *features, *subtracted, *rebuilt));
      });
    });
  };
  Analyse<FeaturesRequest, FeaturesAnswer>(FeaturesFor(request), context, fired,
                                           AskFeatures, AnswerFeatures);
}

void Engine::Impl::CheckDictionary(const std::string& entry,
                                   const RequestContext& context,
                                   std::function<void(absl::Status)> done) {
  const SelfCheckAsk ask = {
      [=, this](ReconstructRequest request, Done<ReconstructAnswer> answer) {
        Analyse<ReconstructRequest, ReconstructAnswer>(
            std::move(request), context, std::move(answer), AskReconstruct,
            AnswerReconstruct);
      },
      [=, this](FeaturesRequest request, Done<FeaturesAnswer> answer) {
        Analyse<FeaturesRequest, FeaturesAnswer>(std::move(request), context,
                                                 std::move(answer), AskFeatures,
                                                 AnswerFeatures);
      }};
  OpenDictionary(entry, context, [=, this](absl::StatusOr<Sources> sources) {
    if (!sources.ok()) return done(sources.status());
    CheckAgainstManifest(entry, *sources->model,
                         sources->dictionary->manifest(), ask,
                         [=, this](absl::StatusOr<SelfCheckResult> result) {
                           if (!result.ok()) return done(result.status());
                           catalog_->SetMeasured(entry, *std::move(result));
                           done(absl::OkStatus());
                         });
  });
}

void Engine::Impl::Drain(absl::Time deadline) {
  draining_ = true;
  unasked_.cancelled->store(true);
  if (front_ == nullptr) return;
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return in_flight_ == 0;
  };
  {
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithDeadline(absl::Condition(&idle), deadline);
  }
  catalog_->Stop();
  for (auto& [device, worker] : workers_) worker->Stop();
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&idle));  // what was ended reports at once
  }
  if (cache_ != nullptr) cache_->Flush();
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, Observer* observer) {
  auto impl = std::make_unique<Impl>(options, observer);
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

void Engine::Tokenize(TokenizeRequest request, RequestContext context,
                      Done<TokenizeAnswer> done) {
  impl_->Admit<TokenizeAnswer>(
      context, std::move(done),
      [impl = impl_.get(), request, context](Done<TokenizeAnswer> done) {
        const auto opened = [=](absl::StatusOr<Sources> sources) {
          if (!sources.ok()) return done(sources.status());
          done(AnswerTokenize(request, *sources, impl->limits()));
        };
        impl->OpenModel(request.model, context, opened);
      });
}

void Engine::GetActivations(ActivationsRequest request, RequestContext context,
                            Done<ActivationsAnswer> done) {
  impl_->Analyse<ActivationsRequest, ActivationsAnswer>(
      std::move(request), context, std::move(done), AskActivations,
      AnswerActivations);
}

void Engine::GetFeatures(FeaturesRequest request, RequestContext context,
                         Done<FeaturesAnswer> done) {
  impl_->Analyse<FeaturesRequest, FeaturesAnswer>(std::move(request), context,
                                                  std::move(done), AskFeatures,
                                                  AnswerFeatures);
}

void Engine::Reconstruct(ReconstructRequest request, RequestContext context,
                         Done<ReconstructAnswer> done) {
  impl_->Analyse<ReconstructRequest, ReconstructAnswer>(
      std::move(request), context, std::move(done), AskReconstruct,
      AnswerReconstruct);
}

void Engine::Run(RunRequest request, RequestContext context,
                 Done<RunAnswer> done) {
  impl_->Analyse<RunRequest, RunAnswer>(std::move(request), context,
                                        std::move(done), AskRun, AnswerRun);
}

void Engine::Ablate(AblateRequest request, RequestContext context,
                    Done<AblateAnswer> done) {
  impl_->Analyse<AblateRequest, AblateAnswer>(
      std::move(request), context, std::move(done), AskAblate, AnswerAblate);
}

void Engine::TabulateAblations(AblationTableRequest request,
                               RequestContext context,
                               Done<AblationTableAnswer> done) {
  impl_->TabulateAblations(std::move(request), context, std::move(done));
}

void Engine::GetWeight(WeightRequest request, RequestContext context,
                       Done<WeightAnswer> done) {
  impl_->Analyse<WeightRequest, WeightAnswer>(
      std::move(request), context, std::move(done), AskWeight, AnswerWeight);
}

void Engine::GetLatentWeights(LatentWeightsRequest request,
                              RequestContext context,
                              Done<LatentWeightsAnswer> done) {
  impl_->Analyse<LatentWeightsRequest, LatentWeightsAnswer>(
      std::move(request), context, std::move(done), AskLatentWeights,
      AnswerLatentWeights);
}

void Engine::Attribute(AttributeRequest request, RequestContext context,
                       Done<AttributeAnswer> done) {
  impl_->Analyse<AttributeRequest, AttributeAnswer>(
      std::move(request), context, std::move(done), AskAttribute,
      AnswerAttribute);
}

void Engine::LogitLens(LogitLensRequest request, RequestContext context,
                       Done<LogitLensAnswer> done) {
  impl_->Analyse<LogitLensRequest, LogitLensAnswer>(
      std::move(request), context, std::move(done), AskLogitLens,
      AnswerLogitLens);
}

void Engine::GetQuality(QualityRequest request, RequestContext context,
                        Done<QualityAnswer> done) {
  impl_->Analyse<QualityRequest, QualityAnswer>(
      std::move(request), context, std::move(done), AskQuality, AnswerQuality);
}

std::vector<ModelStatus> Engine::Models() const {
  return impl_->catalog_->Models();
}
std::vector<DictionaryStatus> Engine::Dictionaries() const {
  return impl_->catalog_->Dictionaries();
}
absl::StatusOr<EntryStatus> Engine::Describe(const std::string& name) const {
  return impl_->catalog_->Describe(name);
}

void Engine::Load(const std::string& name,
                  std::optional<model::Processing> processing,
                  RequestContext context, Done<std::string> done) {
  impl_->Admit<std::string>(
      context, std::move(done),
      [impl = impl_.get(), name, processing, context](Done<std::string> done) {
        impl->catalog_->Load(name, processing, context, done);
      });
}

absl::Status Engine::Unload(const std::string& name) {
  return impl_->catalog_->Unload(name);
}

void Engine::SelfCheck(const std::string& name, RequestContext context,
                       Done<DictionaryStatus> done) {
  const std::string entry = ParseDictionaryName(name).entry;
  impl_->CheckDictionary(
      entry, context, [impl = impl_.get(), entry, done](absl::Status status) {
        if (!status.ok()) return done(status);
        done(impl->catalog_->DescribeDictionary(entry));
      });
}

bool Engine::CatalogReady() const { return impl_->loads_left_ == 0; }

storage::ResultCacheStatistics Engine::CacheStatistics() const {
  return impl_->cache_ != nullptr ? impl_->cache_->GetStatistics()
                                  : storage::ResultCacheStatistics{};
}
std::string Engine::CacheDisabledReason() const {
  return impl_->cache_disabled_reason_;
}
std::string Engine::CacheMovedAsideTo() const {
  return impl_->cache_ != nullptr ? impl_->cache_->MovedAsideTo() : "";
}
void Engine::ClearCache() {
  if (impl_->cache_ != nullptr) impl_->cache_->Clear();
}

int64_t Engine::QueueDepth() const {
  int64_t depth = 0;
  for (const auto& [device, worker] : impl_->workers_) {
    depth += worker->queue().depth();
  }
  return depth;
}
std::vector<std::string> Engine::Devices() const {
  return impl_->catalog_->Devices();
}
const EngineOptions& Engine::options() const { return impl_->options_; }

void Engine::Drain(absl::Time deadline) { impl_->Drain(deadline); }

}  // namespace cupola::engine
