#include <memory>
#include <utility>

#include "absl/synchronization/notification.h"
#include "server/engine/accumulate_jacobian.h"
#include "server/engine/ask_jacobian.h"
#include "server/engine/engine_impl.h"
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

std::string TitleOf(const JacobianRequest& request) {
  return request.output_dictionary.empty()
             ? request.dictionary
             : absl::StrCat(request.dictionary, " -> ",
                            request.output_dictionary);
}

}  // namespace

void Engine::Impl::OpenBridge(const JacobianRequest& request,
                              const RequestContext& context,
                              Catalog::Done<Sources> done) {
  OpenDictionary(request.dictionary, context,
                 [=, this](absl::StatusOr<Sources> sources) {
                   if (!sources.ok()) return done(sources.status());
                   OpenOthers(OtherDictionaries(request), context,
                              *std::move(sources), done);
                 });
}

JacobianAsker Engine::Impl::MakeJacobianAsker() {
  JacobianAsker asker;
  asker.limits = limits();
  asker.open = [this](const JacobianRequest& request,
                      const RequestContext& context) {
    return WaitFor<Sources>([&](Catalog::Done<Sources> done) {
      OpenBridge(request, context, std::move(done));
    });
  };
  asker.ask = [this](const JacobianRequest& request,
                     const RequestContext& context) {
    return WaitFor<JacobianAnswer>([&](Done<JacobianAnswer> done) {
      Analyse(request, context, std::move(done), AskJacobian, AnswerJacobian);
    });
  };
  return asker;
}

void Engine::Impl::StartJobs() {
  Jobs::Options options;
  const std::string state = StateDirectory();
  if (!state.empty()) options.directory = absl::StrCat(state, "/jobs");
  options.checkpoint = options_.job_checkpoint;
  options.kinds[kAccumulateJacobian] = [asker = MakeJacobianAsker()](
                                           const std::string& specification,
                                           const RequestContext& context) {
    return MakeAccumulation(specification, asker, context);
  };
  jobs_ = Jobs::Open(std::move(options));
}

void Engine::AccumulateJacobian(AccumulateJacobianRequest request,
                                RequestContext context, Done<JobInfo> done) {
  Impl* const impl = impl_.get();
  const auto asked =
      std::make_shared<const AccumulateJacobianRequest>(std::move(request));
  impl->Admit<JobInfo>(context, std::move(done), [=](Done<JobInfo> done) {
    const auto submit = [=](const Sources& sources) -> absl::StatusOr<JobInfo> {
      JacobianAsker asker = impl->MakeJacobianAsker();
      asker.open = [&sources](const JacobianRequest&, const RequestContext&)
          -> absl::StatusOr<Sources> { return sources; };
      ASSIGN_OR_RETURN(const std::string specification,
                       SpecifyAccumulation(*asked, asker, context));
      ASSIGN_OR_RETURN(const std::unique_ptr<JobWork> work,
                       MakeAccumulation(specification, asker, context));
      return impl->jobs_->Submit(kAccumulateJacobian, TitleOf(asked->jacobian),
                                 specification, *work);
    };
    impl->OpenBridge(
        asked->jacobian, context, [=](absl::StatusOr<Sources> sources) {
          if (!sources.ok()) return done(sources.status());
          impl->front_->Run(
              [=, sources = *std::move(sources)] { done(submit(sources)); });
        });
  });
}

void Engine::QueryJacobianTotals(JacobianTotalsRequest request,
                                 RequestContext context,
                                 Done<JacobianTotalsAnswer> done) {
  Impl* const impl = impl_.get();
  impl->Admit<JacobianTotalsAnswer>(
      context, std::move(done), [=](const Done<JacobianTotalsAnswer>& done) {
        const auto query = [&]() -> absl::StatusOr<JacobianTotalsAnswer> {
          ASSIGN_OR_RETURN(
              const std::shared_ptr<const JobWork> work,
              impl->jobs_->Result(request.job, kAccumulateJacobian, context));
          return QueryAccumulation(*work, request, impl->limits());
        };
        done(model::CatchTorch("reading a job's result", query));
      });
}

Jobs& Engine::jobs() { return *impl_->jobs_; }

}  // namespace cupola::engine
