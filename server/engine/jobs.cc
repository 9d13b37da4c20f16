#include "server/engine/jobs.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "server/engine/job_record.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::engine {
namespace {

constexpr char kRecordUse[] = "job/";
constexpr char kSpecificationUse[] = "job_specification/";
constexpr size_t kResultsInMemory = 2;
constexpr int64_t kMaxCrashes = 2;
// How fast the rate follows: the weight of a chunk against all before it.
constexpr double kRateWeight = 0.3;
constexpr absl::Duration kQueueFull = absl::Milliseconds(200);

absl::Status ShuttingDown() {
  return absl::UnavailableError("the server is shutting down");
}

const char* NameOf(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kDone:
      return "done";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "";
}

}  // namespace

bool HasEnded(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

std::unique_ptr<Jobs> Jobs::Open(Options options) {
  auto jobs = absl::WrapUnique(new Jobs(std::move(options)));
  absl::Status opened;
  if (jobs->options_.directory.empty()) {
    opened = absl::FailedPreconditionError(
        "jobs need a directory: start the server with --cache_dir");
  } else {
    auto disk = storage::DurableStore::Open(jobs->options_.directory);
    if (disk.ok()) {
      jobs->disk_ = *std::move(disk);
    } else {
      opened = disk.status();
    }
  }
  absl::MutexLock lock(&jobs->mu_);
  jobs->opened_ = opened.ok() ? jobs->Read() : opened;
  if (jobs->opened_.ok()) {
    jobs->thread_ = std::thread([jobs = jobs.get()] { jobs->Loop(); });
  }
  return jobs;
}

Jobs::Jobs(Options options)
    : options_(std::move(options)), checkpoints_(options_.directory) {}

Jobs::~Jobs() { Stop(); }

void Jobs::Interrupt() {
  absl::MutexLock lock(&mu_);
  stopping_ = true;
  if (give_up_ != nullptr) *give_up_ = true;
  for (const auto& [id, tell] : watchers_) tell(ShuttingDown());
  watchers_.clear();
}

void Jobs::Stop() {
  Interrupt();
  if (thread_.joinable()) thread_.join();
}

absl::Status Jobs::Read() {
  checkpoints_.RemoveUnfinished();
  ASSIGN_OR_RETURN(const auto records, disk_->Scan(kRecordUse));
  for (const auto& [key, text] : records) {
    ASSIGN_OR_RETURN(
        JobRecord record,
        DecodeJobRecord(key.substr(sizeof(kRecordUse) - 1), text));
    Job job;
    job.info = std::move(record.info);
    job.crashes = record.crashes;
    JobInfo& info = job.info;
    if (info.state == JobState::kRunning) {
      // The process that ran it did not get to say how it ended.
      info.state = JobState::kQueued;
      if (++job.crashes >= kMaxCrashes) {
        info.state = JobState::kFailed;
        info.error = absl::StrCat(
            "the server ended ", job.crashes, " times while it ran chunk ",
            info.chunks_saved, " or one of those behind it");
      }
      RETURN_IF_ERROR(Record(&job));
    }
    const std::string id = info.id;
    jobs_[id] = std::move(job);
  }
  return absl::OkStatus();
}

void Jobs::TellWatchers(const std::string& id,
                        const absl::StatusOr<JobInfo>& info) {
  std::erase_if(watchers_, [&](const auto& watcher) {
    return watcher.first == id && !watcher.second(info);
  });
}

absl::Status Jobs::Record(Job* job) {
  const JobInfo& info = job->info;
  const absl::Status put = disk_->Put(absl::StrCat(kRecordUse, info.id),
                                      EncodeJobRecord({info, job->crashes}));
  TellWatchers(info.id, info);
  return put;
}

absl::StatusOr<Jobs::Job*> Jobs::Find(const std::string& id) {
  RETURN_IF_ERROR(opened_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) {
    return absl::NotFoundError(absl::StrCat("there is no job \"", id, "\""));
  }
  return &found->second;
}

absl::StatusOr<JobInfo> Jobs::Submit(const std::string& kind,
                                     const std::string& title,
                                     const std::string& specification,
                                     const JobWork& work) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  if (stopping_) return ShuttingDown();
  if (jobs_.size() >= kMaxJobs) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the server holds ", jobs_.size(), " jobs and takes ",
                     kMaxJobs, ": delete some"));
  }
  Job job;
  JobInfo& info = job.info;
  info.kind = kind;
  info.title = title;
  info.chunks = work.chunks();
  for (int64_t i = 0; i < info.chunks; ++i) info.tokens += work.tokens(i);
  info.submitted = absl::Now();
  // Ids sort by time of submission.
  int64_t micros = absl::ToUnixMicros(info.submitted);
  do {
    info.id = absl::StrCat("job-", absl::Hex(micros++, absl::kZeroPad14));
  } while (jobs_.contains(info.id));
  RETURN_IF_ERROR(
      disk_->Put(absl::StrCat(kSpecificationUse, info.id), specification));
  RETURN_IF_ERROR(Record(&job));
  const JobInfo answer = info;
  jobs_[answer.id] = std::move(job);
  return answer;
}

absl::StatusOr<std::vector<JobInfo>> Jobs::List() const {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  std::vector<JobInfo> infos;
  for (const auto& [id, job] : jobs_) infos.push_back(job.info);
  return infos;
}

absl::StatusOr<JobInfo> Jobs::Get(const std::string& id) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const Job* job, Find(id));
  return job->info;
}

void Jobs::Watch(const std::string& id, Teller tell) {
  absl::MutexLock lock(&mu_);
  const auto job = Find(id);
  absl::StatusOr<JobInfo> info = absl::UnknownError("");
  if (!job.ok()) {
    info = job.status();
  } else {
    info = (*job)->info;
  }
  if (!tell(info) || !info.ok()) return;
  if (stopping_) {
    tell(ShuttingDown());
    return;
  }
  watchers_.emplace_back(id, std::move(tell));
}

absl::StatusOr<JobInfo> Jobs::Cancel(const std::string& id) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Job * job, Find(id));
  if (job->info.state == JobState::kQueued) {
    job->info.state = JobState::kCancelled;
    RETURN_IF_ERROR(Record(job));
  } else if (job->info.state == JobState::kRunning) {
    job->cancelled = true;
    if (give_up_ != nullptr) *give_up_ = true;
    // The thread says when it has ended; others may then resume or delete it.
    const auto ended = [&,
                        run = job->runs]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      const auto found = jobs_.find(id);
      return stopping_ || found == jobs_.end() || found->second.runs != run ||
             HasEnded(found->second.info.state);
    };
    mu_.Await(absl::Condition(&ended));
    ASSIGN_OR_RETURN(job, Find(id));
  }
  return job->info;
}

absl::StatusOr<JobInfo> Jobs::Resume(const std::string& id) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Job * job, Find(id));
  JobInfo& info = job->info;
  if (info.state != JobState::kCancelled && info.state != JobState::kFailed) {
    return absl::FailedPreconditionError(
        absl::StrCat("job \"", id, "\" is ", NameOf(info.state),
                     "; accepted: one that is cancelled or failed"));
  }
  if (job->crashes >= kMaxCrashes) {
    return absl::FailedPreconditionError(
        absl::StrCat("job \"", id, "\" is not resumed: ", info.error));
  }
  info.state = JobState::kQueued;
  info.error.clear();
  job->cancelled = false;
  std::erase_if(results_, [&](const auto& held) { return held.first == id; });
  RETURN_IF_ERROR(Record(job));
  return info;
}

absl::Status Jobs::Delete(const std::string& id) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Job * job, Find(id));
  if (!HasEnded(job->info.state)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job \"", id, "\" is ", NameOf(job->info.state), ": cancel it first"));
  }
  RETURN_IF_ERROR(disk_->Delete(absl::StrCat(kRecordUse, id)));
  RETURN_IF_ERROR(disk_->Delete(absl::StrCat(kSpecificationUse, id)));
  checkpoints_.Remove(id);
  std::erase_if(results_, [&](const auto& held) { return held.first == id; });
  jobs_.erase(id);
  return absl::OkStatus();
}

absl::StatusOr<Jobs::Restored> Jobs::Restore(
    const std::string& id, const std::string& kind,
    const RequestContext& context) const {
  const auto maker = options_.kinds.find(kind);
  if (maker == options_.kinds.end()) {
    return absl::UnimplementedError(
        absl::StrCat("this server knows no jobs of kind \"", kind, "\""));
  }
  ASSIGN_OR_RETURN(const std::string specification,
                   disk_->Get(absl::StrCat(kSpecificationUse, id)));
  const auto make = [&] { return maker->second(specification, context); };
  Restored restored;
  ASSIGN_OR_RETURN(restored.work, make());
  ASSIGN_OR_RETURN(restored.chunks,
                   checkpoints_.Restore(id, kind, make, &restored.work));
  return restored;
}

absl::StatusOr<std::shared_ptr<const JobWork>> Jobs::Result(
    const std::string& id, const std::string& kind,
    const RequestContext& context) {
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Job* job, Find(id));
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
  ASSIGN_OR_RETURN(Restored restored, Restore(id, kind, context));
  if (restored.chunks == 0) {
    return absl::DataLossError(
        absl::StrCat("no checkpoint of job \"", id, "\" is left"));
  }
  std::shared_ptr<const JobWork> result = std::move(restored.work);
  absl::MutexLock lock(&mu_);
  // Kept, unless the job has gone on meanwhile or somebody else was quicker.
  const auto found = jobs_.find(id);
  const bool stale = found == jobs_.end() ||
                     !HasEnded(found->second.info.state) ||
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

void Jobs::Loop() {
  while (true) {
    std::string id;
    {
      const auto next = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ ||
               std::any_of(jobs_.begin(), jobs_.end(), [](const auto& entry) {
                 return entry.second.info.state == JobState::kQueued;
               });
      };
      absl::MutexLock lock(&mu_, absl::Condition(&next));
      if (stopping_) return;
      for (auto& [key, job] : jobs_) {
        if (job.info.state != JobState::kQueued) continue;
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
          TellWatchers(key, job.info);
          id.clear();
        }
        break;
      }
    }
    if (!id.empty()) RunJob(id);
  }
}

void Jobs::RunJob(const std::string& id) {
  std::string kind;
  RequestContext context;
  {
    absl::MutexLock lock(&mu_);
    kind = jobs_.at(id).info.kind;
    context.cancelled = give_up_;
  }
  const auto run = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Restored restored, Restore(id, kind, context));
    {
      absl::MutexLock lock(&mu_);
      JobInfo& info = jobs_.at(id).info;
      info.chunks_done = info.chunks_saved = restored.chunks;
      info.tokens_done = 0;
      for (int64_t i = 0; i < restored.chunks; ++i) {
        info.tokens_done += restored.work->tokens(i);
      }
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
  if (absl::Status recorded = Record(&job); !recorded.ok()) {
    job.info.error = std::string(recorded.message());
  }
}

absl::Status Jobs::RunChunks(const std::string& id, JobWork* work) {
  std::string kind;
  RequestContext context;
  context.bulk = true;
  int64_t next = 0;
  {
    absl::MutexLock lock(&mu_);
    const JobInfo& info = jobs_.at(id).info;
    kind = info.kind;
    next = info.chunks_done;
    context.cancelled = give_up_;
  }
  int64_t saved = next;
  absl::Time saved_at = absl::Now();
  absl::Status status;
  for (const int64_t chunks = work->chunks(); next < chunks; ++next) {
    const absl::Time begin = absl::Now();
    context.arrival = begin;
    status = *context.cancelled ? absl::CancelledError("given up")
                                : work->RunChunk(next, context);
    if (status.GetPayload("retry-delay-ms").has_value()) {
      absl::SleepFor(kQueueFull);  // people fill the queue: they go first
      --next;
      continue;
    }
    if (!status.ok()) break;
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    {
      absl::MutexLock lock(&mu_);
      JobInfo& info = jobs_.at(id).info;
      const int64_t tokens = work->tokens(next);
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
