#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/jobs.h"
#include "server/engine/retry_later.h"
#include "server/model/status_macros.h"

// Jobs: their states, as results and as shards.

namespace cupola::engine {
namespace {

constexpr size_t kResultsInMemory = 2;
constexpr double kRetrySeconds = 5;

}  // namespace

absl::StatusOr<std::unique_ptr<JobWork>> Jobs::Make(
    const JobSpecification& specification,
    const RequestContext& context) const {
  const auto maker = options_.kinds.find(specification.kind);
  if (maker == options_.kinds.end()) {
    return absl::UnimplementedError(absl::StrCat(
        "this server knows no jobs of kind \"", specification.kind, "\""));
  }
  return maker->second(specification.text, context);
}

absl::StatusOr<Jobs::Restored> Jobs::Restore(
    const std::string& id, const std::string& kind,
    const RequestContext& context) const {
  JobSpecification specification{kind, "", ""};
  ASSIGN_OR_RETURN(specification.text, SpecificationOf(id));
  const auto make = [&] { return Make(specification, context); };
  Restored restored;
  ASSIGN_OR_RETURN(restored.work, make());
  ASSIGN_OR_RETURN(restored.chunks,
                   checkpoints_.Restore(id, kind, make, &restored.work));
  return restored;
}

void Jobs::DropResults() {
  decltype(results_) dropped;  // freed with no lock held
  absl::MutexLock lock(&mu_);
  dropped.swap(results_);
}

absl::StatusOr<Jobs::Restored> Jobs::RestoreInMemory(
    const std::string& id, const std::string& kind,
    const RequestContext& context) {
  absl::StatusOr<Restored> restored = Restore(id, kind, context);
  if (restored.ok() || !absl::IsResourceExhausted(restored.status())) {
    return restored;
  }
  DropResults();
  return Restore(id, kind, context);
}

absl::StatusOr<std::shared_ptr<const JobWork>> Jobs::Result(
    const std::string& id, const std::string& kind,
    const RequestContext& context) {
  int64_t saved = 0;
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Job* job, Find(id));
    saved = job->info.chunks_saved;
    if (job->damaged) return absl::DataLossError(job->info.error);
    if (job->info.kind != kind) {
      return absl::InvalidArgumentError(absl::StrCat(
          "job \"", id, "\" is of kind ", job->info.kind, ", not ", kind));
    }
    if (!HasEnded(job->info.state)) {
      return absl::FailedPreconditionError(
          absl::StrCat("job \"", id, "\" is ", NameOf(job->info.state),
                       ": wait until it is done, or cancel it"));
    }
    if (job->info.chunks_saved == 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "job \"", id, "\" is ", NameOf(job->info.state), " and has no result",
          job->info.error.empty() ? "" : ": ", job->info.error));
    }
    for (size_t i = 0; i < results_.size(); ++i) {
      if (results_[i].first != id) continue;
      std::rotate(results_.begin() + i, results_.begin() + i + 1,
                  results_.end());
      return results_.back().second;
    }
  }
  ASSIGN_OR_RETURN(Restored restored, RestoreInMemory(id, kind, context));
  if (restored.chunks == 0) {
    return absl::DataLossError(
        absl::StrCat("no checkpoint of job \"", id, "\" is left"));
  }
  if (restored.chunks < saved) {
    RETURN_IF_ERROR(MarkDamaged(id, saved, restored.chunks));
    return absl::DataLossError(absl::StrCat(
        "the state of job \"", id, "\" after ", saved,
        " chunks is damaged; what is left is that after ", restored.chunks,
        ": resume the job to have the rest anew"));
  }
  std::shared_ptr<const JobWork> result = std::move(restored.work);
  absl::MutexLock lock(&mu_);
  // Kept, unless the job has gone on meanwhile or somebody else was quicker.
  const auto found = jobs_.find(id);
  const bool stale = found == jobs_.end() ||
                     !HasEnded(found->second.info.state) ||
                     found->second.leaving ||
                     found->second.info.chunks_saved != restored.chunks;
  const bool held =
      std::any_of(results_.begin(), results_.end(),
                  [&](const auto& other) { return other.first == id; });
  if (!stale && !held) {
    results_.emplace_back(id, result);
    if (results_.size() > kResultsInMemory) results_.erase(results_.begin());
  }
  return result;
}

absl::Status Jobs::MarkDamaged(const std::string& id, int64_t saved,
                               int64_t left) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Job * job, Find(id));
  JobInfo& info = job->info;
  if (!HasEnded(info.state) || info.chunks_saved != saved) {
    return absl::OkStatus();  // it has gone on meanwhile
  }
  if (info.state == JobState::kDone) info.state = JobState::kFailed;
  info.error = absl::StrCat("the state after ", saved, " chunks is damaged");
  info.chunks_done = info.chunks_saved = left;
  MarkEnded(job);
  return Record(job);
}

absl::StatusOr<ExportedShard> Jobs::Export(const std::string& id) {
  JobInfo info;
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Job* job, Find(id));
    info = job->info;
  }
  if (info.state != JobState::kDone) {
    return absl::FailedPreconditionError(
        absl::StrCat("job \"", id, "\" is ", NameOf(info.state),
                     "; accepted: one that is done"));
  }
  ExportedShard exported{
      {info.kind, info.title, ""}, info.shard, info.tokens, 0, nullptr};
  ASSIGN_OR_RETURN(exported.specification.text, SpecificationOf(id));
  exported.state.reset(
      std::fopen(checkpoints_.Path(id, info.chunks).c_str(), "rbe"));
  struct stat status {};
  if (exported.state == nullptr ||
      fstat(fileno(exported.state.get()), &status) != 0) {
    return absl::DataLossError(
        absl::StrCat("the state of job \"", id, "\" is not there"));
  }
  exported.bytes = status.st_size;
  return exported;
}

absl::StatusOr<std::unique_ptr<ShardInbox>> Jobs::Receive() {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  if (receiving_ >= kMaxMerges) {
    return RetryLater(absl::StrCat("the shards of ", receiving_,
                                   " jobs are being received; accepted: ",
                                   kMaxMerges, " at a time"),
                      kRetrySeconds);
  }
  ++receiving_;
  const std::shared_ptr<void> place(nullptr, [this](void*) {
    absl::MutexLock lock(&mu_);
    --receiving_;
  });
  return std::make_unique<ShardInbox>(
      absl::StrCat(options_.directory, "/received-", inboxes_++, "-"), states_,
      place);
}

}  // namespace cupola::engine
