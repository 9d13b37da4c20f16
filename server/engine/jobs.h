#ifndef CUPOLA_SERVER_ENGINE_JOBS_H_
#define CUPOLA_SERVER_ENGINE_JOBS_H_

#include <atomic>
#include <cstdint>
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
#include "server/engine/job_checkpoints.h"
#include "server/engine/job_work.h"
#include "server/engine/requests.h"
#include "storage/durable_store.h"

namespace cupola::engine {

enum class JobState : uint8_t {
  kQueued = 1,
  kRunning = 2,
  kDone = 3,
  kFailed = 4,
  kCancelled = 5,
};

// Neither queued nor running.
bool HasEnded(JobState state);

struct JobInfo {
  std::string id;
  std::string kind;
  std::string title;  // what it is about, for people
  JobState state = JobState::kQueued;
  int64_t chunks_done = 0, chunks = 0;
  int64_t tokens_done = 0, tokens = 0;
  int64_t chunks_saved = 0;      // in the last checkpoint
  double seconds = 0;            // spent on chunks_done
  double tokens_per_second = 0;  // of late; 0: not known
  double seconds_left = -1;      // an estimate; -1: none
  std::string error;             // why it failed
  absl::Time submitted;
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
//  - A job during which the server crashed twice, with no checkpoint in
//    between, has failed for good.
//
// Any thread may call. Errors: NOT_FOUND (no such job, with its name),
// FAILED_PRECONDITION (not in that state), DATA_LOSS (no checkpoint of the job
// is whole), RESOURCE_EXHAUSTED (too many jobs; a full disk), UNAVAILABLE (the
// server is shutting down).
class Jobs {
 public:
  static constexpr size_t kMaxJobs = 1000;

  struct Options {
    std::string directory;  // empty: there are no jobs
    absl::Duration checkpoint = absl::Seconds(30);
    std::map<std::string, JobMaker> kinds;
  };
  // A directory that cannot be opened fails each later call with its error
  // instead of the server's start. Begins with what a former process left.
  static std::unique_ptr<Jobs> Open(Options options);
  ~Jobs();  // as Stop
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  // `work`: made of `specification`, to learn the job's size of.
  absl::StatusOr<JobInfo> Submit(const std::string& kind,
                                 const std::string& title,
                                 const std::string& specification,
                                 const JobWork& work);
  // By time of submission.
  absl::StatusOr<std::vector<JobInfo>> List() const;
  absl::StatusOr<JobInfo> Get(const std::string& id);
  // Calls `tell` with the job as it is, and again at each change until it
  // returns false or was told an error (NOT_FOUND; UNAVAILABLE when the server
  // ends). It is called with the jobs' lock held: it must be quick, and not
  // call Jobs.
  using Teller = std::function<bool(const absl::StatusOr<JobInfo>&)>;
  void Watch(const std::string& id, Teller tell);
  // Ends a queued or running job after its current chunk is given up; its
  // state stays. Nothing happens to one that has ended.
  absl::StatusOr<JobInfo> Cancel(const std::string& id);
  // Queues a cancelled or failed job again, to go on from its last checkpoint.
  absl::StatusOr<JobInfo> Resume(const std::string& id);
  // Forgets a job that is neither queued nor running, and its state.
  absl::Status Delete(const std::string& id);
  // The work of a job that is neither queued nor running, in the state of its
  // last checkpoint. The last few stay in memory.
  absl::StatusOr<std::shared_ptr<const JobWork>> Result(
      const std::string& id, const std::string& kind,
      const RequestContext& context);

  // Gives up the current chunk and saves the state in the background; the job
  // goes on with the next process. Who watches is told UNAVAILABLE.
  void Interrupt();
  // The same, and waits for the end.
  void Stop();

 private:
  struct Job {
    JobInfo info;
    int64_t crashes = 0;     // since the last checkpoint that was new
    bool cancelled = false;  // is to end
    int64_t runs = 0;        // begun by this process
  };

  explicit Jobs(Options options);
  absl::Status Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Loop();
  void RunJob(const std::string& id);
  absl::Status RunChunks(const std::string& id, JobWork* work);
  // The job's work in the state of its last checkpoint, with its chunks.
  struct Restored {
    std::unique_ptr<JobWork> work;
    int64_t chunks = 0;
  };
  absl::StatusOr<Restored> Restore(const std::string& id,
                                   const std::string& kind,
                                   const RequestContext& context) const;
  absl::Status SaveState(const std::string& id, const std::string& kind,
                         const JobWork& work, int64_t chunks);
  absl::Status Record(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TellWatchers(const std::string& id, const absl::StatusOr<JobInfo>& info)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Job*> Find(const std::string& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const JobCheckpoints checkpoints_;
  std::unique_ptr<storage::DurableStore> disk_;
  mutable absl::Mutex mu_;
  absl::Status opened_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Job> jobs_ ABSL_GUARDED_BY(mu_);  // by id
  std::vector<std::pair<std::string, Teller>> watchers_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Gives up the chunk that runs.
  std::shared_ptr<std::atomic<bool>> give_up_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<std::string, std::shared_ptr<const JobWork>>> results_
      ABSL_GUARDED_BY(mu_);  // the last used at the end
  std::thread thread_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOBS_H_
