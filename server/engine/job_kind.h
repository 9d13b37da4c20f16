#ifndef CUPOLA_SERVER_ENGINE_JOB_KIND_H_
#define CUPOLA_SERVER_ENGINE_JOB_KIND_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/analysis/accumulator.h"
#include "server/engine/activation_stores.h"
#include "server/engine/attribution_requests.h"
#include "server/engine/datasets.h"
#include "server/engine/jacobian_requests.h"
#include "server/engine/job_memory.h"
#include "server/engine/job_rows.h"
#include "server/engine/job_work.h"
#include "server/engine/jobs.h"
#include "server/engine/question.h"
#include "server/engine/run_requests.h"
#include "server/engine/token_job.h"

// What kinds of jobs are made of. A kind is one file pair (accumulate_jacobian,
// feature_statistics_job) of a plain request and
//
//   Specify(request, host, context)   its specification, self-contained text,
//                                     every value checked
//   Make(text, host, context)         the work that the text says
//                                     (token_job.h has what all of them read)
//   Query(work, request, limits)      what is asked of the result
//
// and one line in Engine::Impl::StartJobs.

namespace cupola::engine {

// The engine as jobs see it: each call asks one thing and waits for the answer.
// Not for the engine's front threads.
struct JobHost {
  Limits limits;
  Datasets* datasets = nullptr;
  ActivationStores* stores = nullptr;
  const JobMemory* memory = nullptr;
  // A dictionary, and others beside it.
  std::function<absl::StatusOr<Sources>(const std::string& dictionary,
                                        const std::vector<std::string>& others,
                                        const RequestContext&)>
      open;
  std::function<absl::StatusOr<JacobianAnswer>(const JacobianRequest&,
                                               const RequestContext&)>
      jacobian;
  std::function<absl::StatusOr<FeaturesAnswer>(const FeaturesRequest&,
                                               const RequestContext&)>
      features;
  std::function<absl::StatusOr<RunAnswer>(const RunRequest&,
                                          const RequestContext&)>
      run;
  std::function<absl::StatusOr<AblateAnswer>(const AblateRequest&,
                                             const RequestContext&)>
      ablate;
  std::function<absl::StatusOr<AttributeAnswer>(const AttributeRequest&,
                                                const RequestContext&)>
      attribute;
};

// Work that goes over rows and keeps one accumulator. A kind adds RunChunk.
template <analysis::Accumulator A>
class AccumulatingWork : public JobWork {
 public:
  // `zero` makes A without anything added, whose size the maker has checked: it
  // is called when the state is needed, as to submit a job takes none. `bytes`:
  // what it takes at most, where it is worth counting; it is then charged to
  // the jobs' memory.
  AccumulatingWork(TokenJob job, const JobHost& host, std::function<A()> zero,
                   double bytes = 0)
      : job_(std::move(job)),
        datasets_(host.datasets),
        memory_(host.memory),
        zero_(std::move(zero)),
        bytes_(bytes) {}

  uint32_t version() const override { return A::kVersion; }
  storage::Digest identity() const override { return job_.identity; }
  JobProvenance provenance() const override { return job_.provenance; }
  absl::Status Begin() override {
    if (plan_.has_value()) return absl::OkStatus();
    const absl::Status opened = job_.rows.Open(datasets_);
    if (!opened.ok()) return opened;
    plan_.emplace(&job_.rows, job_.rules);
    return plan_->Check();
  }
  int64_t chunks() const override { return plan_->chunks(); }
  int64_t tokens(int64_t chunk) const override {
    return plan_->positions(chunk);
  }
  absl::Status Save(storage::StateWriter* state) const override {
    return totals().Save(state);
  }
  absl::Status Restore(storage::StateReader* state) override {
    const absl::Status made = MakeState();
    return made.ok() ? totals().Restore(state) : made;
  }
  absl::Status Merge(const JobWork& later) override {
    return totals().Merge(
        static_cast<const AccumulatingWork<A>&>(later).totals());
  }
  // Of work that has a state: that was restored, or ran a chunk.
  const A& totals() const { return *totals_; }

 protected:
  // Before a chunk asks for anything. JobMemory's error.
  absl::Status MakeState() {
    if (totals_.has_value()) return absl::OkStatus();
    if (bytes_ > 0) {
      auto charge = memory_->Take(bytes_);
      if (!charge.ok()) return charge.status();
      charge_ = *std::move(charge);
    }
    totals();
    return absl::OkStatus();
  }
  A& totals() {
    if (!totals_.has_value()) totals_.emplace(zero_());
    return *totals_;
  }

  TokenJob job_;
  const Datasets* const datasets_;
  const JobMemory* const memory_;
  std::optional<ChunkPlan> plan_;  // once begun
  const std::function<A()> zero_;
  const double bytes_;
  JobMemory::Charge charge_;  // for the state
  std::optional<A> totals_;   // once there is a state
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_KIND_H_
