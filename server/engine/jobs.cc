#include "server/engine/jobs.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "server/engine/mean_store.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

constexpr char kRecordUse[] = "job/";
constexpr char kSpecificationUse[] = "job_specification/";
constexpr int64_t kMaxCrashes = 2;
constexpr size_t kMaxRequestIdBytes = 128;

absl::Status ShuttingDown() {
  return absl::UnavailableError("the server is shutting down");
}

}  // namespace

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
  jobs->held_ = jobs->options_.held;
  if (jobs->opened_.ok()) {
    jobs->thread_ = std::thread([jobs = jobs.get()] { jobs->Loop(); });
  }
  return jobs;
}

Jobs::Jobs(Options options)
    : options_(std::move(options)), checkpoints_(options_.directory) {}

Jobs::~Jobs() { Stop(); }

void Jobs::Begin() {
  absl::MutexLock lock(&mu_);
  held_ = false;
}

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
    Job job;
    ASSIGN_OR_RETURN(static_cast<JobRecord&>(job),
                     DecodeJobRecord(key.substr(sizeof(kRecordUse) - 1), text));
    JobInfo& info = job.info;
    if (info.state == JobState::kRunning) {
      // The process that ran it did not get to say how it ended.
      info.state = JobState::kQueued;
      if (++job.crashes >= kMaxCrashes) {
        info.state = JobState::kFailed;
        info.error = absl::StrCat(
            "the server ended ", job.crashes, " times while it ran chunk ",
            info.chunks_saved, " or one of those behind it");
        MarkEnded(&job);
      }
      RETURN_IF_ERROR(Record(&job));
    }
    info.resumable = (info.state == JobState::kFailed ||
                      info.state == JobState::kCancelled) &&
                     job.crashes < kMaxCrashes;
    const std::string id = info.id;
    jobs_[id] = std::move(job);
  }
  return DropOrphans();
}

absl::Status Jobs::DropOrphans() {
  for (const std::string& id : checkpoints_.JobsWithStates()) {
    if (!jobs_.contains(id)) checkpoints_.Remove(id);
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> keys,
                   disk_->Keys(kSpecificationUse));
  for (const std::string& key : keys) {
    if (jobs_.contains(key.substr(sizeof(kSpecificationUse) - 1))) continue;
    RETURN_IF_ERROR(disk_->Delete(key));
  }
  return absl::OkStatus();
}

void Jobs::MarkEnded(Job* job) const {
  job->info.expires = absl::Now() + std::min(job->keep, options_.keep);
  job->info.resumable =
      job->info.state != JobState::kDone && job->crashes < kMaxCrashes;
}

void Jobs::TellWatchers(const std::string& id,
                        const absl::StatusOr<JobInfo>& info) {
  std::erase_if(watchers_, [&](const auto& watcher) {
    return watcher.first == id && !watcher.second(info);
  });
}

absl::Status Jobs::Record(Job* job) {
  const absl::Status put =
      disk_->Put(absl::StrCat(kRecordUse, job->info.id), EncodeJobRecord(*job));
  TellWatchers(job->info.id, job->info);
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

absl::StatusOr<std::string> Jobs::SpecificationOf(const std::string& id) const {
  return disk_->Get(absl::StrCat(kSpecificationUse, id));
}

absl::Status Jobs::HasRoom(int64_t more) const {
  const int64_t bytes = checkpoints_.Bytes();
  if (bytes + more <= options_.max_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the states of jobs take ", bytes, " bytes and would take ",
                   bytes + more, "; accepted: ", options_.max_bytes,
                   " (delete jobs, or raise the server's --job_bytes)"));
}

absl::StatusOr<Jobs::Job> Jobs::NewJob(const JobSpecification& specification,
                                       const JobOptions& options,
                                       const JobInfo** known) {
  RETURN_IF_ERROR(opened_);
  if (stopping_) return ShuttingDown();
  if (!options.name.empty()) {
    RETURN_IF_ERROR(MeanStore::CheckName(options.name, "options.name"));
  }
  if (options.request_id.size() > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("options.request_id has ", options.request_id.size(),
                     " bytes; accepted: ", kMaxRequestIdBytes));
  }
  if (options.keep < absl::ZeroDuration() || options.keep > options_.keep) {
    return absl::InvalidArgumentError(absl::StrCat(
        "options.keep_seconds is ", absl::ToInt64Seconds(options.keep),
        "; accepted: 0 (the server's choice) to ",
        absl::ToInt64Seconds(options_.keep)));
  }
  Purge();
  for (const auto& [id, job] : jobs_) {
    const bool again =
        !options.request_id.empty() && job.request_id == options.request_id;
    if (again && job.info.name == options.name &&
        job.info.shard.index == options.shard.index &&
        job.info.shard.count == options.shard.count) {
      ASSIGN_OR_RETURN(const std::string text, SpecificationOf(id));
      if (text == specification.text) {
        *known = &job.info;
        return Job();
      }
    }
    if (again) {
      return absl::AlreadyExistsError(absl::StrCat(
          "options.request_id \"", options.request_id, "\" is that of job \"",
          id, "\", which asks for something else"));
    }
    if (!options.name.empty() && job.info.name == options.name) {
      return absl::AlreadyExistsError(absl::StrCat(
          "there is a job named \"", options.name, "\" (", id, ", ",
          NameOf(job.info.state), "): delete it, or take another name"));
    }
  }
  if (jobs_.size() >= kMaxJobs) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the server holds ", jobs_.size(), " jobs and takes ",
                     kMaxJobs, ": delete some"));
  }
  RETURN_IF_ERROR(HasRoom(1));
  Job job;
  JobInfo& info = job.info;
  info.kind = specification.kind;
  info.title = specification.title;
  info.name = options.name;
  info.shard = options.shard;
  info.submitted = absl::Now();
  job.request_id = options.request_id;
  job.keep = options.keep > absl::ZeroDuration() ? options.keep : options_.keep;
  // Ids sort by time of submission.
  int64_t micros = absl::ToUnixMicros(info.submitted);
  do {
    info.id = absl::StrCat("job-", absl::Hex(micros++, absl::kZeroPad14));
  } while (micros <= last_id_ || jobs_.contains(info.id));
  last_id_ = micros;
  return job;
}

absl::StatusOr<JobInfo> Jobs::Keep(const std::string& specification, Job job) {
  RETURN_IF_ERROR(
      disk_->Put(absl::StrCat(kSpecificationUse, job.info.id), specification));
  RETURN_IF_ERROR(Record(&job));
  const JobInfo answer = job.info;
  jobs_[answer.id] = std::move(job);
  return answer;
}

absl::StatusOr<JobInfo> Jobs::Submit(const JobSpecification& specification,
                                     const JobOptions& options,
                                     const JobWork& work) {
  const Shard& shard = options.shard;
  const int64_t chunks = work.chunks();
  const int64_t most = std::min<int64_t>(chunks, kMaxShards);
  if (shard.count < 1 || shard.count > most || shard.index < 0 ||
      shard.index >= shard.count) {
    return absl::InvalidArgumentError(
        absl::StrCat("options.shard is ", shard.index, " of ", shard.count,
                     "; accepted: a count of 1 to ", most, " (the job has ",
                     chunks, " chunks) and an index below it"));
  }
  absl::MutexLock lock(&mu_);
  const JobInfo* known = nullptr;
  ASSIGN_OR_RETURN(Job job, NewJob(specification, options, &known));
  if (known != nullptr) return *known;
  JobInfo& info = job.info;
  info.first_chunk = chunks * shard.index / shard.count;
  info.chunks = chunks * (shard.index + 1) / shard.count - info.first_chunk;
  for (int64_t i = 0; i < info.chunks; ++i) {
    info.tokens += work.tokens(info.first_chunk + i);
  }
  info.provenance = work.provenance();
  return Keep(specification.text, std::move(job));
}

absl::StatusOr<std::vector<JobInfo>> Jobs::List() {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  Purge();
  std::vector<JobInfo> infos;
  for (const auto& [id, job] : jobs_) infos.push_back(job.info);
  return infos;
}

absl::StatusOr<JobInfo> Jobs::Get(const std::string& id) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  Purge();
  ASSIGN_OR_RETURN(const Job* job, Find(id));
  return job->info;
}

bool Jobs::Uses(const storage::Digest& dataset) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(jobs_.begin(), jobs_.end(), [&](const auto& entry) {
    const JobInfo& info = entry.second.info;
    return !HasEnded(info.state) && !info.provenance.dataset.empty() &&
           info.provenance.dataset_digest == dataset;
  });
}

bool Jobs::Writes(const storage::Digest& store) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(jobs_.begin(), jobs_.end(), [&](const auto& entry) {
    const JobInfo& info = entry.second.info;
    return !HasEnded(info.state) && info.provenance.store == store;
  });
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
  const JobState state = job->info.state;
  if (state == JobState::kDone || state == JobState::kFailed) {
    return absl::FailedPreconditionError(
        absl::StrCat("job \"", id, "\" is ", NameOf(state),
                     "; accepted: one that is queued or running"));
  }
  if (state == JobState::kQueued) {
    job->info.state = JobState::kCancelled;
    MarkEnded(job);
    RETURN_IF_ERROR(Record(job));
  } else if (state == JobState::kRunning) {
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
  if (!info.resumable) {
    return absl::FailedPreconditionError(
        absl::StrCat("job \"", id, "\" is not resumed: ", info.error));
  }
  info.state = JobState::kQueued;
  info.error.clear();
  info.resumable = false;
  info.expires = absl::InfiniteFuture();
  job->cancelled = false;
  std::erase_if(results_, [&](const auto& held) { return held.first == id; });
  RETURN_IF_ERROR(Record(job));
  return info;
}

absl::Status Jobs::Forget(const std::string& id) {
  RETURN_IF_ERROR(disk_->Delete(absl::StrCat(kRecordUse, id)));
  RETURN_IF_ERROR(disk_->Delete(absl::StrCat(kSpecificationUse, id)));
  checkpoints_.Remove(id);
  std::erase_if(results_, [&](const auto& held) { return held.first == id; });
  jobs_.erase(id);
  return absl::OkStatus();
}

absl::Status Jobs::Delete(const std::string& id) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const Job* job, Find(id));
  if (!HasEnded(job->info.state)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job \"", id, "\" is ", NameOf(job->info.state), ": cancel it first"));
  }
  return Forget(id);
}

void Jobs::Purge() {
  const absl::Time now = absl::Now();
  std::vector<std::string> old;
  for (const auto& [id, job] : jobs_) {
    if (HasEnded(job.info.state) && job.info.expires <= now) old.push_back(id);
  }
  // What the disk cannot delete goes another time.
  for (const std::string& id : old) Forget(id).IgnoreError();
}

}  // namespace cupola::engine
