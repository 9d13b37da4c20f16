#ifndef CUPOLA_SERVER_ENGINE_JOBS_H_
#define CUPOLA_SERVER_ENGINE_JOBS_H_

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/actor.h"
#include "server/engine/byte_quota.h"
#include "server/engine/job_checkpoints.h"
#include "server/engine/job_info.h"
#include "server/engine/job_record.h"
#include "server/engine/job_work.h"
#include "server/engine/requests.h"
#include "server/engine/shard_inbox.h"
#include "storage/durable_store.h"
#include "storage/state_file.h"

namespace cupola::engine {

// How a job is submitted, whatever it computes.
struct JobOptions {
  // The client's name for it, which no other job has; may be empty.
  std::string name;
  // Of the submission: the same one again, with the same specification, is
  // answered with the job that is there. May be empty.
  std::string request_id;
  Shard shard;
  // How long the job is kept once it has ended; zero: the server's choice.
  absl::Duration keep = absl::ZeroDuration();
  // Who submits it, and may then cancel, resume and delete it; empty: nobody
  // but admins may.
  std::string owner;
};

// The state of a shard that is done, to be merged elsewhere.
struct ExportedShard {
  JobSpecification specification;
  Shard shard;
  int64_t tokens = 0;
  int64_t bytes = 0;
  std::unique_ptr<std::FILE, storage::CloseFile> state;  // at its beginning
};

// Long computations: submitted, watched, cancelled and resumed. One thread runs
// one job at a time, oldest first; what a chunk asks of a device goes behind
// everything that people wait for (RequestContext::bulk). A job and its state
// live in a directory of their own:
//
//  - Submit returns when the job is on the disk.
//  - The state is saved after a chunk when `checkpoint` has gone by since the
//    last time, and when a job ends or the server does. After a crash the job
//    goes on from there. Where the newest checkpoint is damaged, from the one
//    before it.
//  - A state that cannot be saved, because the disk or the quota is full, fails
//    its job alone, which may be resumed when there is room.
//  - A job during which the server crashed twice, with no checkpoint in
//    between, has failed, and goes on only when somebody resumes it.
//  - A job that has ended is deleted, with its result, when it expires.
//  - A job whose record is damaged has failed; the others have not.
//
// A shard runs some of the chunks, and its state is the sum of these. Merged in
// the shards' order they are what one job's would be: see
// analysis/accumulator.h for how exactly.
//
// Any thread may call. Errors: NOT_FOUND (no such job, with its name),
// ALREADY_EXISTS, FAILED_PRECONDITION (not in that state), DATA_LOSS (no
// checkpoint of the job is whole), PERMISSION_DENIED (it is another's),
// RESOURCE_EXHAUSTED (too many jobs; a quota or the disk is full), UNAVAILABLE
// (the server is shutting down).
class Jobs {
 public:
  static constexpr size_t kMaxJobs = 1000;
  static constexpr size_t kMaxMerges = 4;  // that are received at a time

  struct Options {
    std::string directory;  // empty: there are no jobs
    absl::Duration checkpoint = absl::Seconds(30);
    // Of all states and specifications, those that are written or received
    // among them.
    int64_t max_bytes = int64_t{64} << 30;
    absl::Duration keep = absl::InfiniteDuration();  // the longest and default
    bool held = false;  // nothing runs before Begin
    std::map<std::string, JobMaker> kinds;
  };
  // A directory that cannot be opened fails each later call with its error
  // instead of the server's start. Begins with what a former process left.
  static std::unique_ptr<Jobs> Open(Options options);
  ~Jobs();  // as Stop
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  // The work of a specification. UNIMPLEMENTED: of an unknown kind.
  absl::StatusOr<std::unique_ptr<JobWork>> Make(
      const JobSpecification& specification,
      const RequestContext& context) const;
  // `work`: made of the specification, and begun.
  absl::StatusOr<JobInfo> Submit(const JobSpecification& specification,
                                 const JobOptions& options,
                                 const JobWork& work);
  // By time of submission.
  absl::StatusOr<std::vector<JobInfo>> List();
  absl::StatusOr<JobInfo> Get(const std::string& id);
  // Calls `tell` with the job as it is, and again at each change until it
  // returns false or was told an error (NOT_FOUND; UNAVAILABLE when the server
  // ends). It is called with the jobs' lock held: it must be quick, and not
  // call Jobs.
  using Teller = std::function<bool(const absl::StatusOr<JobInfo>&)>;
  void Watch(const std::string& id, Teller tell);
  // Ends a queued or running job after its current chunk is given up; its
  // state stays. Nothing happens to one that was cancelled before.
  absl::StatusOr<JobInfo> Cancel(const std::string& id, const Actor& by = {});
  // Queues a cancelled or failed job again, to go on from its last checkpoint.
  absl::StatusOr<JobInfo> Resume(const std::string& id, const Actor& by = {});
  // Forgets a job that is neither queued nor running, and its state.
  absl::Status Delete(const std::string& id, const Actor& by = {});
  // The work of a job that is neither queued nor running, in the state of its
  // last checkpoint. The last few stay in memory.
  absl::StatusOr<std::shared_ptr<const JobWork>> Result(
      const std::string& id, const std::string& kind,
      const RequestContext& context);
  // Whether a job that has not ended goes over these documents, or writes this
  // store.
  bool Uses(const storage::Digest& dataset) const;
  bool Writes(const storage::Digest& store) const;

  absl::StatusOr<ExportedShard> Export(const std::string& id);
  // Where shards are received, which ends before this does. RESOURCE_EXHAUSTED:
  // kMaxMerges of them are there.
  absl::StatusOr<std::unique_ptr<ShardInbox>> Receive();
  // A job that is done, with the state of all its shards, which are all there
  // are of one specification: INVALID_ARGUMENT says which are missing or do not
  // fit. Waits for models to load. `shards`: an inbox's, which stays.
  absl::StatusOr<JobInfo> Merge(std::vector<ReceivedShard> shards,
                                const JobOptions& options,
                                const RequestContext& context);

  // Of jobs that were held.
  void Begin();
  // Gives up the current chunk and saves the state in the background; the job
  // goes on with the next process. Who watches is told UNAVAILABLE.
  void Interrupt();
  // The same, and waits for the end.
  void Stop();

 private:
  struct Job : JobRecord {
    bool cancelled = false;  // is to end
    int64_t runs = 0;        // begun by this process
    bool damaged = false;    // its record is
    bool leaving = false;    // it is being deleted: nobody finds it
  };

  static constexpr char kSpecificationUse[] = "job_specification/";

  explicit Jobs(Options options);
  // Drops what a process that was killed has left of jobs that it had not yet
  // kept, or had already forgotten.
  absl::Status DropOrphans() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Deletes a job that is leaving, or makes it stay when the disk fails.
  absl::Status Drop(const std::string& id) ABSL_LOCKS_EXCLUDED(mu_);
  // Deletes what has expired; the disk's failures are for another time.
  void Purge() ABSL_LOCKS_EXCLUDED(mu_);
  // jobs_run.cc
  void Loop();
  void RunJob(const std::string& id);
  absl::Status RunChunks(const std::string& id, JobWork* work);
  absl::Status SaveState(const std::string& id, const std::string& kind,
                         const JobWork& work, int64_t chunks);
  // jobs_results.cc
  // The job's work in the state of its last checkpoint, with its chunks.
  struct Restored {
    std::unique_ptr<JobWork> work;
    int64_t chunks = 0;
  };
  absl::StatusOr<Restored> Restore(const std::string& id,
                                   const std::string& kind,
                                   const RequestContext& context) const;
  // A result of `saved` chunks has turned out to be one of `left`: the job is
  // no longer done.
  absl::Status MarkDamaged(const std::string& id, int64_t saved, int64_t left);
  // Restore; where there is no memory for the state, once more without the
  // results that are held in it.
  absl::StatusOr<Restored> RestoreInMemory(const std::string& id,
                                           const std::string& kind,
                                           const RequestContext& context);
  void DropResults();
  absl::StatusOr<std::string> SpecificationOf(const std::string& id) const;

  // jobs_submit.cc
  // A job with an id, not yet kept. ALREADY_EXISTS; `*known` is the job of the
  // same submission, where there is one.
  absl::StatusOr<Job> NewJob(const JobSpecification& specification,
                             const JobOptions& options, const JobInfo** known)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Keeps a job of NewJob's, with what is on the disk of it by then, or drops
  // it all.
  absl::StatusOr<JobInfo> Keep(const JobSpecification& specification,
                               const JobOptions& options, Job job);

  void MarkEnded(Job* job) const;
  absl::Status Record(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TellWatchers(const std::string& id, const absl::StatusOr<JobInfo>& info)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Job*> Find(const std::string& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const std::shared_ptr<ByteQuota> states_;
  JobCheckpoints checkpoints_;
  std::unique_ptr<storage::DurableStore> disk_;
  mutable absl::Mutex mu_;
  absl::Status opened_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Job> jobs_ ABSL_GUARDED_BY(mu_);  // by id
  std::vector<std::pair<std::string, Teller>> watchers_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int64_t inboxes_ ABSL_GUARDED_BY(mu_) = 0;   // ever given out
  size_t receiving_ ABSL_GUARDED_BY(mu_) = 0;  // of these: are still there
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  int64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;  // the number behind it
  // Gives up the chunk that runs.
  std::shared_ptr<std::atomic<bool>> give_up_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<std::string, std::shared_ptr<const JobWork>>> results_
      ABSL_GUARDED_BY(mu_);  // the last used at the end
  std::thread thread_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOBS_H_
