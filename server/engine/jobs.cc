#include "server/engine/jobs.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

constexpr char kRecordUse[] = "job/";
constexpr int64_t kMaxCrashes = 2;

absl::Status ShuttingDown() {
  return absl::UnavailableError("the server is shutting down");
}

std::string Named(const std::string& id) {
  return absl::StrCat("job \"", id, "\"");
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
    : options_(std::move(options)),
      states_(std::make_shared<ByteQuota>(ByteQuota::Options{
          options_.max_bytes, "the states of jobs",
          "delete jobs, or raise the server's --job_bytes"})),
      checkpoints_(options_.directory, states_) {}

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
  checkpoints_.Open();
  ASSIGN_OR_RETURN(const auto records, disk_->Scan(kRecordUse));
  for (const auto& [key, text] : records) {
    Job job;
    JobInfo& info = job.info;
    const std::string id = key.substr(sizeof(kRecordUse) - 1);
    absl::StatusOr<JobRecord> record = DecodeJobRecord(id, text);
    if (!record.ok()) {
      // The record stays as it is: a server of another version may read it.
      job.damaged = true;
      info.id = id;
      info.state = JobState::kFailed;
      info.error = std::string(record.status().message());
      jobs_[id] = std::move(job);
      continue;
    }
    static_cast<JobRecord&>(job) = *std::move(record);
    states_->Add(job.specification_bytes);
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
    info.resumable =
        info.state == JobState::kFailed || info.state == JobState::kCancelled;
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
  job->info.resumable = job->info.state != JobState::kDone;
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
  if (found == jobs_.end() || found->second.leaving) {
    return absl::NotFoundError(absl::StrCat("there is no job \"", id, "\""));
  }
  return &found->second;
}

absl::StatusOr<std::string> Jobs::SpecificationOf(const std::string& id) const {
  return disk_->Get(absl::StrCat(kSpecificationUse, id));
}

absl::StatusOr<std::vector<JobInfo>> Jobs::List() {
  Purge();
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  std::vector<JobInfo> infos;
  for (const auto& [id, job] : jobs_) {
    if (!job.leaving) infos.push_back(job.info);
  }
  return infos;
}

absl::StatusOr<JobInfo> Jobs::Get(const std::string& id) {
  Purge();
  absl::MutexLock lock(&mu_);
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

absl::StatusOr<JobInfo> Jobs::Cancel(const std::string& id, const Actor& by) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Job * job, Find(id));
  RETURN_IF_ERROR(CheckOwner(by, job->info.owner, Named(id)));
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

absl::StatusOr<JobInfo> Jobs::Resume(const std::string& id, const Actor& by) {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Job * job, Find(id));
  JobInfo& info = job->info;
  RETURN_IF_ERROR(CheckOwner(by, info.owner, Named(id)));
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
  job->crashes = 0;
  std::erase_if(results_, [&](const auto& held) { return held.first == id; });
  RETURN_IF_ERROR(Record(job));
  return info;
}

absl::Status Jobs::Delete(const std::string& id, const Actor& by) {
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(Job * job, Find(id));
    RETURN_IF_ERROR(CheckOwner(by, job->info.owner, Named(id)));
    if (!HasEnded(job->info.state)) {
      return absl::FailedPreconditionError(absl::StrCat("job \"", id, "\" is ",
                                                        NameOf(job->info.state),
                                                        ": cancel it first"));
    }
    job->leaving = true;
  }
  return Drop(id);
}

absl::Status Jobs::Drop(const std::string& id) {
  const absl::Status deleted = disk_->Delete(absl::StrCat(kRecordUse, id));
  if (deleted.ok()) {
    // Without its record the rest is dropped by the next start at the latest.
    disk_->Delete(absl::StrCat(kSpecificationUse, id)).IgnoreError();
    checkpoints_.Remove(id);
  }
  absl::MutexLock lock(&mu_);
  Job& job = jobs_.at(id);
  job.leaving = deleted.ok();
  if (!deleted.ok()) return deleted;
  states_->Add(-job.specification_bytes);
  std::erase_if(results_, [&](const auto& held) { return held.first == id; });
  jobs_.erase(id);
  return absl::OkStatus();
}

void Jobs::Purge() {
  std::vector<std::string> old;
  {
    absl::MutexLock lock(&mu_);
    const absl::Time now = absl::Now();
    for (auto& [id, job] : jobs_) {
      if (job.leaving || !HasEnded(job.info.state) || job.info.expires > now) {
        continue;
      }
      job.leaving = true;
      old.push_back(id);
    }
  }
  for (const std::string& id : old) Drop(id).IgnoreError();
}

}  // namespace cupola::engine
