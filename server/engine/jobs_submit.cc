#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/engine/jobs.h"
#include "server/engine/mean_store.h"
#include "server/model/status_macros.h"

// Jobs: how one comes to be.

namespace cupola::engine {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

}  // namespace

absl::StatusOr<Jobs::Job> Jobs::NewJob(const JobSpecification& specification,
                                       const JobOptions& options,
                                       const JobInfo** known) {
  RETURN_IF_ERROR(opened_);
  if (stopping_) {
    return absl::UnavailableError("the server is shutting down");
  }
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
  for (const auto& [id, job] : jobs_) {
    if (job.leaving) continue;
    const bool again =
        !options.request_id.empty() && job.request_id == options.request_id;
    if (again && job.info.name == options.name &&
        job.info.owner == options.owner &&
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
  Job job;
  JobInfo& info = job.info;
  info.kind = specification.kind;
  info.title = specification.title;
  info.name = options.name;
  info.owner = options.owner;
  info.shard = options.shard;
  info.submitted = absl::Now();
  job.request_id = options.request_id;
  job.specification_bytes = static_cast<int64_t>(specification.text.size());
  job.keep = options.keep > absl::ZeroDuration() ? options.keep : options_.keep;
  // Ids sort by time of submission.
  int64_t micros = absl::ToUnixMicros(info.submitted);
  do {
    info.id = absl::StrCat("job-", absl::Hex(micros++, absl::kZeroPad14));
  } while (micros <= last_id_ || jobs_.contains(info.id));
  last_id_ = micros;
  return job;
}

absl::StatusOr<JobInfo> Jobs::Keep(const JobSpecification& specification,
                                   const JobOptions& options, Job job) {
  const std::string id = job.info.id;
  const std::string key = absl::StrCat(kSpecificationUse, id);
  ByteQuota::Share share(states_);
  absl::Cleanup drop = [&] {
    disk_->Delete(key).IgnoreError();
    checkpoints_.Remove(id);
  };
  RETURN_IF_ERROR(share.Grow(job.specification_bytes));
  RETURN_IF_ERROR(disk_->Put(key, specification.text));
  absl::MutexLock lock(&mu_);
  // Somebody else may have taken the name meanwhile.
  const JobInfo* known = nullptr;
  RETURN_IF_ERROR(NewJob(specification, options, &known).status());
  if (known != nullptr) return *known;
  RETURN_IF_ERROR(Record(&job));
  const JobInfo answer = job.info;
  jobs_[id] = std::move(job);
  share.Keep();
  std::move(drop).Cancel();
  return answer;
}

absl::StatusOr<JobInfo> Jobs::Submit(const JobSpecification& specification,
                                     const JobOptions& options,
                                     const JobWork& work) {
  const Shard& shard = options.shard;
  const int64_t chunks = work.chunks();
  const int64_t most = std::min<int64_t>(chunks, ShardInbox::kMaxShards);
  if (shard.count < 1 || shard.count > most || shard.index < 0 ||
      shard.index >= shard.count) {
    return absl::InvalidArgumentError(
        absl::StrCat("options.shard is ", shard.index, " of ", shard.count,
                     "; accepted: a count of 1 to ", most, " (the job has ",
                     chunks, " chunks) and an index below it"));
  }
  Purge();
  Job job;
  {
    absl::MutexLock lock(&mu_);
    const JobInfo* known = nullptr;
    ASSIGN_OR_RETURN(job, NewJob(specification, options, &known));
    if (known != nullptr) return *known;
  }
  JobInfo& info = job.info;
  info.first_chunk = chunks * shard.index / shard.count;
  info.chunks = chunks * (shard.index + 1) / shard.count - info.first_chunk;
  for (int64_t i = 0; i < info.chunks; ++i) {
    info.tokens += work.tokens(info.first_chunk + i);
  }
  info.provenance = work.provenance();
  return Keep(specification, options, std::move(job));
}

}  // namespace cupola::engine
