#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/job_memory.h"
#include "server/engine/jobs.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

// Jobs: the thread that runs them.

namespace cupola::engine {
namespace {

// How fast the rate follows: the weight of a chunk against all before it.
constexpr double kRateWeight = 0.3;
constexpr absl::Duration kQueueFull = absl::Milliseconds(200);
// How often it is looked for jobs that have expired.
constexpr absl::Duration kLook = absl::Minutes(1);

// RetryLater's.
bool IsForNow(const absl::Status& status) {
  return status.GetPayload("retry-delay-ms").has_value();
}

}  // namespace

void Jobs::Loop() {
  while (true) {
    std::string id;
    {
      const auto next = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        if (stopping_ || held_) return stopping_;
        return std::any_of(jobs_.begin(), jobs_.end(), [](const auto& entry) {
          return entry.second.info.state == JobState::kQueued;
        });
      };
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithTimeout(absl::Condition(&next), kLook);
      if (stopping_) return;
      for (auto& [key, job] : jobs_) {
        if (held_ || job.info.state != JobState::kQueued) continue;
        id = key;
        job.info.state = JobState::kRunning;
        job.info.tokens_per_second = 0;
        job.cancelled = false;
        ++job.runs;
        std::erase_if(results_,
                      [&id](const auto& held) { return held.first == id; });
        give_up_ = std::make_shared<std::atomic<bool>>(false);
        // Told before the work begins: it may be what ends the process.
        if (absl::Status s = Record(&job); !s.ok()) {
          job.info.state = JobState::kFailed;
          job.info.error = std::string(s.message());
          MarkEnded(&job);
          TellWatchers(key, job.info);
          id.clear();
        }
        break;
      }
    }
    if (!id.empty()) RunJob(id);
    Purge();
  }
}

void Jobs::RunJob(const std::string& id) {
  std::string kind;
  int64_t first = 0;
  RequestContext context;
  {
    absl::MutexLock lock(&mu_);
    kind = jobs_.at(id).info.kind;
    first = jobs_.at(id).info.first_chunk;
    context.cancelled = give_up_;
  }
  const auto run = [&]() -> absl::Status {
    absl::StatusOr<Restored> made = RestoreInMemory(id, kind, context);
    while (!made.ok() && IsForNow(made.status()) && !*context.cancelled) {
      absl::SleepFor(kQueueFull);
      made = RestoreInMemory(id, kind, context);
    }
    ASSIGN_OR_RETURN(const Restored restored, std::move(made));
    RETURN_IF_ERROR(restored.work->Begin());
    const absl::Status changed =
        absl::FailedPreconditionError("what the job goes over has changed");
    if (restored.chunks > restored.work->chunks() - first) return changed;
    int64_t tokens = 0;
    for (int64_t i = 0; i < restored.chunks; ++i) {
      tokens += restored.work->tokens(first + i);
    }
    {
      absl::MutexLock lock(&mu_);
      JobInfo& info = jobs_.at(id).info;
      if (first + info.chunks > restored.work->chunks()) return changed;
      info.chunks_done = info.chunks_saved = restored.chunks;
      info.tokens_done = tokens;
    }
    return RunChunks(id, restored.work.get());
  };
  const absl::Status status = model::CatchTorch("running a job", run);
  absl::MutexLock lock(&mu_);
  Job& job = jobs_.at(id);
  job.crashes = 0;  // it ended, however
  job.info.tokens_per_second = 0;
  job.info.seconds_left = -1;
  if (status.ok()) {
    job.info.state = JobState::kDone;
    job.info.seconds_left = 0;
  } else if (job.cancelled) {
    job.info.state = JobState::kCancelled;
  } else if (stopping_) {
    job.info.state = JobState::kQueued;  // the next process goes on
  } else {
    job.info.state = JobState::kFailed;
    job.info.error = absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                                  status.message());
  }
  if (HasEnded(job.info.state)) MarkEnded(&job);
  if (absl::Status recorded = Record(&job); !recorded.ok()) {
    job.info.error = std::string(recorded.message());
  }
}

absl::Status Jobs::RunChunks(const std::string& id, JobWork* work) {
  std::string kind;
  RequestContext context;
  context.bulk = true;
  int64_t next = 0, first = 0, chunks = 0;
  {
    absl::MutexLock lock(&mu_);
    const JobInfo& info = jobs_.at(id).info;
    kind = info.kind;
    next = info.chunks_done;
    first = info.first_chunk;
    chunks = info.chunks;
    context.cancelled = give_up_;
  }
  int64_t saved = next;
  absl::Time saved_at = absl::Now();
  absl::Status status;
  for (; next < chunks; ++next) {
    const absl::Time begin = absl::Now();
    context.arrival = begin;
    status = *context.cancelled ? absl::CancelledError("given up")
                                : work->RunChunk(first + next, context);
    if (IsForNow(status)) {
      if (status.GetPayload(JobMemory::kPayload).has_value()) DropResults();
      absl::SleepFor(kQueueFull);  // people fill the queue: they go first
      --next;
      continue;
    }
    if (!status.ok()) break;
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    {
      absl::MutexLock lock(&mu_);
      JobInfo& info = jobs_.at(id).info;
      const int64_t tokens = work->tokens(first + next);
      const double rate = tokens / std::max(seconds, 1e-9);
      double& known = info.tokens_per_second;
      known = known == 0 ? rate : known + kRateWeight * (rate - known);
      info.seconds += seconds;
      info.chunks_done = next + 1;
      info.tokens_done += tokens;
      info.seconds_left = (info.tokens - info.tokens_done) / known;
      TellWatchers(id, info);
    }
    const bool last = next + 1 == chunks;
    if (!last && absl::Now() - saved_at < options_.checkpoint) continue;
    RETURN_IF_ERROR(SaveState(id, kind, *work, next + 1));
    saved = next + 1;
    saved_at = absl::Now();
  }
  // A job that is interrupted loses nothing.
  if (next > saved) {
    if (absl::Status kept = SaveState(id, kind, *work, next); !kept.ok()) {
      return status.ok() ? kept : status;
    }
  }
  return status;
}

absl::Status Jobs::SaveState(const std::string& id, const std::string& kind,
                             const JobWork& work, int64_t chunks) {
  RETURN_IF_ERROR(checkpoints_.Save(id, kind, work, chunks));
  absl::MutexLock lock(&mu_);
  Job& job = jobs_.at(id);
  job.info.chunks_saved = chunks;
  job.crashes = 0;  // it got on
  return Record(&job);
}

}  // namespace cupola::engine
