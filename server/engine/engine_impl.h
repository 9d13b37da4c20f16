#ifndef CUPOLA_SERVER_ENGINE_ENGINE_IMPL_H_
#define CUPOLA_SERVER_ENGINE_ENGINE_IMPL_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/engine/catalog.h"
#include "server/engine/datasets.h"
#include "server/engine/device_worker.h"
#include "server/engine/engine.h"
#include "server/engine/executor.h"
#include "server/engine/job_kind.h"
#include "server/engine/mean_store.h"
#include "server/engine/question.h"
#include "server/engine/request_runner.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::engine {

// What an Engine is made of; only engine*.cc include this.
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

  template <typename Request>
  using AskFunction = absl::StatusOr<Question> (*)(const Request&,
                                                   const Sources&,
                                                   const Limits&);

  // Opens what a request names, asks, runs and answers: one request's way.
  // It opens the model of requests that name one, or the dictionary (and its
  // model), and all of OtherDictionaries(request) where there is such a
  // function.
  template <typename Request, typename Answer>
  void Analyse(Request request, RequestContext context,
               std::type_identity_t<Done<Answer>> done,
               AskFunction<std::type_identity_t<Request>> ask,
               Answer (*answer)(const Question&, Answered));

  // The same inside of what has been admitted.
  template <typename Request, typename Answer>
  void AnalyseAdmitted(Request request, RequestContext context,
                       std::type_identity_t<Done<Answer>> done,
                       AskFunction<std::type_identity_t<Request>> ask,
                       Answer (*answer)(const Question&, Answered));

  // A request that needs a model's files alone: `answer`, from Sources to a
  // StatusOr<Answer>, on the front executor.
  template <typename Answer, typename Make>
  void WithModel(const std::string& model, const RequestContext& context,
                 Done<Answer> done, Make answer);

  // In the catalog of this moment; a request that opens more than one thing
  // names the one it has begun with.
  void OpenModel(const std::string& name, const RequestContext& context,
                 Catalog::Done<Sources> done, EntriesPtr entries = nullptr);
  void OpenDictionary(const std::string& name, const RequestContext& context,
                      Catalog::Done<Sources> done,
                      EntriesPtr entries = nullptr);
  void TabulateAblations(AblationTableRequest request,
                         const RequestContext& context,
                         Done<AblationTableAnswer> done);
  // What the table would take, as far as can be told before it is known which
  // latents fire: with kManyActive of them.
  void EstimateTable(AblationTableRequest request,
                     const RequestContext& context,
                     Done<AblationTableAnswer> done);
  void AddToEstimate(const Estimate& before, AttributeRequest request,
                     const RequestContext& context, Done<AttributeAnswer> done);
  // Asks for the mean over reference prompts first where the request has some.
  void Attribute(AttributeRequest request, const RequestContext& context,
                 Done<AttributeAnswer> done);
  // Adds the dictionaries of a request that names any number of them.
  void OpenOthers(std::vector<std::string> names, const RequestContext& context,
                  Sources sources, Catalog::Done<Sources> done);

  // All of its calls block: for the threads of jobs and the slow executor.
  JobHost MakeJobHost();
  // Request: one that a kind of job Specifies.
  template <typename Request>
  void SubmitJob(Request request, JobOptions options,
                 const RequestContext& context, Done<JobInfo> done);
  // `query`, from the job's work, the request and limits to the answer. On the
  // slow executor unless another is named.
  template <typename Answer, typename Request, typename Query>
  void QueryJob(const char* kind, Request request,
                const RequestContext& context, Done<Answer> done, Query query,
                Executor* executor = nullptr);
  // `body`, to a StatusOr<Answer>, which may block, on the slow executor.
  template <typename Answer, typename Body>
  void Slowly(const RequestContext& context, Done<Answer> done,
              const char* what, Body body) {
    SlowlyOn(slow_.get(), context, std::move(done), what, std::move(body));
  }
  template <typename Answer, typename Body>
  void SlowlyOn(Executor* executor, const RequestContext& context,
                Done<Answer> done, const char* what, Body body);
  // What says whether a long computation is still wanted: nobody waits for it,
  // or the server is ending.
  std::function<absl::Status()> Poll(const RequestContext& context) const;
  void StartStores();
  void StartJobs();
  void StartDatasets();
  // `body`, which may block, on the slow executor, with what the model's files
  // say.
  template <typename Answer, typename Body>
  void WithModelSlowly(const std::string& model, const RequestContext& context,
                       Done<Answer> done, Body body);

  std::string StateDirectory() const;
  absl::Status SetCatalog(const CatalogSpec& spec, const std::string& whole);
  // Opens the entries that are not among `before`, and loads them while there
  // is room.
  void LoadNew(const Entries& before, const Entries& now);
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
  std::unique_ptr<MeanStore> means_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<RequestRunner> runner_;
  std::map<std::string, std::unique_ptr<DeviceWorker>> workers_;
  std::unique_ptr<Executor> front_;
  std::unique_ptr<Datasets> datasets_;
  std::unique_ptr<ActivationStores> stores_;
  std::unique_ptr<JobMemory> job_memory_;
  std::unique_ptr<Jobs> jobs_;
  std::unique_ptr<Executor> slow_;  // for what takes minutes or blocks
  // For assignments of features, each of which may take minutes of its thread:
  // they wait for one another and for nothing else to wait for them.
  std::unique_ptr<Executor> assigning_;

  const RequestContext unasked_;  // of what nobody has requested
  std::atomic<int> loads_left_{0};
  std::atomic<bool> draining_{false};
  std::atomic<bool> ending_{false};  // what still computes gives up
  absl::Mutex mu_;
  int64_t in_flight_ ABSL_GUARDED_BY(mu_) = 0;
};

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

template <typename Request, typename Answer>
void Engine::Impl::Analyse(Request request, RequestContext context,
                           std::type_identity_t<Done<Answer>> done,
                           AskFunction<std::type_identity_t<Request>> ask,
                           Answer (*answer)(const Question&, Answered)) {
  Admit<Answer>(context, std::move(done),
                [=, this, request = std::move(request)](Done<Answer> done) {
                  AnalyseAdmitted(request, context, std::move(done), ask,
                                  answer);
                });
}

template <typename Request, typename Answer>
void Engine::Impl::AnalyseAdmitted(
    Request request, RequestContext context,
    std::type_identity_t<Done<Answer>> done,
    AskFunction<std::type_identity_t<Request>> ask,
    Answer (*answer)(const Question&, Answered)) {
  // Shared, since the steps below copy what they capture.
  auto asked = std::make_shared<const Request>(std::move(request));
  const auto opened = [=, this](absl::StatusOr<Sources> sources) {
    if (!sources.ok()) return done(sources.status());
    // A waiter may be called by the loading thread: tokenize elsewhere.
    front_->Run([=, this, sources = *std::move(sources)]() mutable {
      sources.means = means_.get();
      absl::StatusOr<Question> made = model::CatchTorch(
          "reading a request", [&] { return ask(*asked, sources, limits()); });
      if (!made.ok()) return done(made.status());
      // Records hold more than answers tell.
      made->max_record_bytes = 2 * options_.max_answer_bytes;
      auto question = std::make_shared<const Question>(*std::move(made));
      runner_->Run(question, context, [=](absl::StatusOr<Answered> answered) {
        if (!answered.ok()) return done(answered.status());
        if (answered->estimate.has_value()) {
          Answer empty;
          empty.provenance = ProvenanceOf(*question, *answered);
          return done(std::move(empty));
        }
        done(model::CatchTorch(
            "assembling an answer", [&]() -> absl::StatusOr<Answer> {
              RETURN_IF_ERROR(CheckAnswer(*question, answered->records));
              return answer(*question, *std::move(answered));
            }));
      });
    });
  };
  const auto begun = [=, this](absl::StatusOr<Sources> sources) {
    if constexpr (requires { OtherDictionaries(*asked); }) {
      if (!sources.ok()) return done(sources.status());
      OpenOthers(OtherDictionaries(*asked), context, *std::move(sources),
                 opened);
    } else {
      opened(std::move(sources));
    }
  };
  if constexpr (!requires { asked->dictionary; }) {
    OpenModel(asked->model, context, begun);
  } else if constexpr (!requires { asked->model; }) {
    OpenDictionary(asked->dictionary, context, begun);
  } else if (asked->dictionary.empty()) {
    OpenModel(asked->model, context, begun);
  } else {
    OpenDictionary(asked->dictionary, context, begun);
  }
}

template <typename Answer, typename Make>
void Engine::Impl::WithModel(const std::string& model,
                             const RequestContext& context, Done<Answer> done,
                             Make answer) {
  Admit<Answer>(context, std::move(done), [=, this](Done<Answer> done) {
    OpenModel(model, context, [=](absl::StatusOr<Sources> sources) {
      if (!sources.ok()) return done(sources.status());
      done(answer(*sources));
    });
  });
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ENGINE_IMPL_H_
