#include <memory>
#include <utility>

#include "absl/synchronization/notification.h"
#include "server/engine/accumulate_jacobian.h"
#include "server/engine/ask_ablate.h"
#include "server/engine/ask_features.h"
#include "server/engine/ask_jacobian.h"
#include "server/engine/ask_run.h"
#include "server/engine/coactivation_job.h"
#include "server/engine/direction_statistics_job.h"
#include "server/engine/engine_impl.h"
#include "server/engine/feature_statistics_job.h"
#include "server/engine/match_features_job.h"
#include "server/engine/store_activations_job.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

// Waits for the one answer that `start` is told to report.
template <typename Answer, typename Start>
absl::StatusOr<Answer> WaitFor(const Start& start) {
  absl::StatusOr<Answer> answer = absl::UnknownError("");
  absl::Notification there;
  start([&](absl::StatusOr<Answer> told) {
    answer = std::move(told);
    there.Notify();
  });
  there.WaitForNotification();
  return answer;
}

}  // namespace

JobHost Engine::Impl::MakeJobHost() {
  JobHost host;
  host.limits = limits();
  host.datasets = datasets_.get();
  host.stores = stores_.get();
  host.memory = job_memory_.get();
  host.open = [this](const std::string& dictionary,
                     const std::vector<std::string>& others,
                     const RequestContext& context) {
    return WaitFor<Sources>([&](Catalog::Done<Sources> done) {
      OpenDictionary(dictionary, context,
                     [=, this](absl::StatusOr<Sources> sources) {
                       if (!sources.ok()) return done(sources.status());
                       OpenOthers(others, context, *std::move(sources), done);
                     });
    });
  };
  host.jacobian = [this](const JacobianRequest& request,
                         const RequestContext& context) {
    return WaitFor<JacobianAnswer>([&](Done<JacobianAnswer> done) {
      Analyse(request, context, std::move(done), AskJacobian, AnswerJacobian);
    });
  };
  host.features = [this](const FeaturesRequest& request,
                         const RequestContext& context) {
    return WaitFor<FeaturesAnswer>([&](Done<FeaturesAnswer> done) {
      Analyse(request, context, std::move(done), AskFeatures, AnswerFeatures);
    });
  };
  host.run = [this](const RunRequest& request, const RequestContext& context) {
    return WaitFor<RunAnswer>([&](Done<RunAnswer> done) {
      Analyse(request, context, std::move(done), AskRun, AnswerRun);
    });
  };
  host.ablate = [this](const AblateRequest& request,
                       const RequestContext& context) {
    return WaitFor<AblateAnswer>([&](Done<AblateAnswer> done) {
      Analyse(request, context, std::move(done), AskAblate, AnswerAblate);
    });
  };
  host.attribute = [this](const AttributeRequest& request,
                          const RequestContext& context) {
    return WaitFor<AttributeAnswer>([&](Done<AttributeAnswer> done) {
      Attribute(request, context, std::move(done));
    });
  };
  return host;
}

void Engine::Impl::StartStores() {
  ActivationStores::Options options;
  const std::string state = StateDirectory();
  if (!state.empty()) options.directory = absl::StrCat(state, "/activations");
  options.max_bytes = options_.store_bytes;
  options.keep = options_.store_keep;
  options.in_use = [this](const storage::Digest& key) {
    return jobs_ != nullptr && jobs_->Writes(key);
  };
  stores_ = ActivationStores::Open(std::move(options));
}

void Engine::Impl::StartJobs() {
  job_memory_ = std::make_unique<JobMemory>(options_.job_memory);
  Jobs::Options options;
  const std::string state = StateDirectory();
  if (!state.empty()) options.directory = absl::StrCat(state, "/jobs");
  options.checkpoint = options_.job_checkpoint;
  options.held = options_.hold_jobs;
  options.max_bytes = options_.job_bytes;
  options.keep = options_.job_keep;
  const auto add = [&, host = MakeJobHost()](const char* kind, auto* make) {
    options.kinds[kind] = [=](const std::string& specification,
                              const RequestContext& context) {
      return make(specification, host, context);
    };
  };
  add(kAccumulateJacobian, MakeAccumulation);
  add(kFeatureStatistics, MakeFeatureStatistics);
  add(kMatchFeatures, MakeMatchFeatures);
  add(kCoactivation, MakeCoactivation);
  add(kStoreActivations, MakeStoreActivations);
  add(kDirectionStatistics, MakeDirectionStatistics);
  jobs_ = Jobs::Open(std::move(options));
}

template <typename Request>
void Engine::Impl::SubmitJob(Request request, JobOptions options,
                             const RequestContext& context,
                             Done<JobInfo> done) {
  const auto submit = [=, this, request = std::move(request),
                       options =
                           std::move(options)]() -> absl::StatusOr<JobInfo> {
    RETURN_IF_ERROR(StillWanted(context));
    const JobHost host = MakeJobHost();
    ASSIGN_OR_RETURN(const JobSpecification specification,
                     Specify(request, host, context));
    ASSIGN_OR_RETURN(const std::unique_ptr<JobWork> work,
                     jobs_->Make(specification, context));
    RETURN_IF_ERROR(work->Begin());
    ASSIGN_OR_RETURN(const JobInfo info,
                     jobs_->Submit(specification, options, *work));
    // From now on the job holds its dataset, which may have gone just before.
    const JobProvenance& made_of = info.provenance;
    if (!made_of.dataset.empty() && !HasEnded(info.state)) {
      const absl::Status there = datasets_->Rows(made_of.rows_digest).status();
      if (!there.ok()) {
        // It fails in any case.
        jobs_->Cancel(info.id).status().IgnoreError();
        jobs_->Delete(info.id).IgnoreError();
        return there;
      }
    }
    return info;
  };
  Slowly<JobInfo>(context, std::move(done), "submitting a job", submit);
}

template <typename Answer, typename Body>
void Engine::Impl::SlowlyOn(Executor* executor, const RequestContext& context,
                            Done<Answer> done, const char* what, Body body) {
  Admit<Answer>(context, std::move(done),
                [=, body = std::move(body)](Done<Answer> done) {
                  executor->Run([=, body = std::move(body)] {
                    done(model::CatchTorch(what, body));
                  });
                });
}

std::function<absl::Status()> Engine::Impl::Poll(
    const RequestContext& context) const {
  return [context, this] {
    return ending_ ? absl::UnavailableError("the server is shutting down")
                   : StillWanted(context);
  };
}

template <typename Answer, typename Request, typename Query>
void Engine::Impl::QueryJob(const char* kind, Request request,
                            const RequestContext& context, Done<Answer> done,
                            Query query, Executor* executor) {
  if (executor == nullptr) executor = slow_.get();
  // The first look at a result reads its state, which may be large, and waits
  // for models to be there.
  SlowlyOn<Answer>(
      executor, context, std::move(done), "reading a job's result",
      [=, this, request = std::move(request)]() -> absl::StatusOr<Answer> {
        RETURN_IF_ERROR(StillWanted(context));
        ASSIGN_OR_RETURN(const std::shared_ptr<const JobWork> work,
                         jobs_->Result(request.job, kind, context));
        return query(*work, request, limits());
      });
}

void Engine::AccumulateJacobian(AccumulateJacobianRequest request,
                                JobOptions options, RequestContext context,
                                Done<JobInfo> done) {
  impl_->SubmitJob(std::move(request), std::move(options), context,
                   std::move(done));
}

void Engine::QueryJacobianTotals(JacobianTotalsRequest request,
                                 RequestContext context,
                                 Done<JacobianTotalsAnswer> done) {
  impl_->QueryJob(kAccumulateJacobian, std::move(request), context,
                  std::move(done), QueryAccumulation);
}

void Engine::ComputeFeatureStatistics(FeatureStatisticsRequest request,
                                      JobOptions options,
                                      RequestContext context,
                                      Done<JobInfo> done) {
  impl_->SubmitJob(std::move(request), std::move(options), context,
                   std::move(done));
}

void Engine::QueryFeatureStatistics(FeatureStatisticsQuery request,
                                    RequestContext context,
                                    Done<FeatureStatisticsAnswer> done) {
  impl_->QueryJob(kFeatureStatistics, std::move(request), context,
                  std::move(done), AnswerFeatureStatistics);
}

void Engine::MatchFeatures(MatchFeaturesRequest request, JobOptions options,
                           RequestContext context, Done<JobInfo> done) {
  impl_->SubmitJob(std::move(request), std::move(options), context,
                   std::move(done));
}

void Engine::QueryFeatureMatching(FeatureMatchingQuery request,
                                  RequestContext context,
                                  Done<FeatureMatchingAnswer> done) {
  const bool assigns = Assigns(request);
  impl_->QueryJob(
      kMatchFeatures, std::move(request), context, std::move(done),
      [poll = impl_->Poll(context)](const JobWork& work,
                                    const FeatureMatchingQuery& query,
                                    const Limits& limits) {
        return AnswerFeatureMatching(work, query, limits, poll);
      },
      assigns ? impl_->assigning_.get() : nullptr);
}

void Engine::CountCoactivation(CoactivationRequest request, JobOptions options,
                               RequestContext context, Done<JobInfo> done) {
  impl_->SubmitJob(std::move(request), std::move(options), context,
                   std::move(done));
}

void Engine::QueryCoactivation(CoactivationQuery request,
                               RequestContext context,
                               Done<CoactivationAnswer> done) {
  impl_->QueryJob(kCoactivation, std::move(request), context, std::move(done),
                  [poll = impl_->Poll(context)](const JobWork& work,
                                                const CoactivationQuery& query,
                                                const Limits& limits) {
                    return AnswerCoactivation(work, query, limits, poll);
                  });
}

void Engine::ComputeDirectionStatistics(DirectionStatisticsRequest request,
                                        JobOptions options,
                                        RequestContext context,
                                        Done<JobInfo> done) {
  impl_->SubmitJob(std::move(request), std::move(options), context,
                   std::move(done));
}

void Engine::QueryDirectionStatistics(DirectionStatisticsQuery request,
                                      RequestContext context,
                                      Done<DirectionStatisticsAnswer> done) {
  impl_->QueryJob(kDirectionStatistics, std::move(request), context,
                  std::move(done), AnswerDirectionStatistics);
}

void Engine::MergeShards(std::vector<ReceivedShard> shards, JobOptions options,
                         RequestContext context, Done<JobInfo> done) {
  Jobs* const jobs = impl_->jobs_.get();
  impl_->Slowly<JobInfo>(
      context, std::move(done), "merging a job's shards",
      [=, shards = std::move(shards), options = std::move(options)] {
        return jobs->Merge(shards, options, context);
      });
}

void Engine::StoreActivations(StoreActivationsRequest request,
                              JobOptions options, RequestContext context,
                              Done<JobInfo> done) {
  impl_->SubmitJob(std::move(request), std::move(options), context,
                   std::move(done));
}

void Engine::ReadStore(ReadStoreRequest request, RequestContext context,
                       Done<ReadStoreAnswer> done) {
  impl_->Slowly<ReadStoreAnswer>(
      context, std::move(done), "reading a store",
      [impl = impl_.get(), request = std::move(request)] {
        return engine::ReadStore(request, impl->limits(), impl->stores_.get());
      });
}

ActivationStores& Engine::stores() { return *impl_->stores_; }

Jobs& Engine::jobs() { return *impl_->jobs_; }

}  // namespace cupola::engine
