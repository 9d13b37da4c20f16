#ifndef CUPOLA_SERVER_ENGINE_JOB_CHECKPOINTS_H_
#define CUPOLA_SERVER_ENGINE_JOB_CHECKPOINTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/byte_quota.h"
#include "server/engine/job_work.h"

namespace cupola::engine {

// The saved states of jobs, a file each (storage/state_file.h) in one
// directory: the newest two of a job, so that damage to one costs no more than
// the time in between. Each byte of them is taken from a quota before it is
// written. Any thread may call, about one job one at a time.
class JobCheckpoints {
 public:
  JobCheckpoints(std::string directory, std::shared_ptr<ByteQuota> quota)
      : directory_(std::move(directory)), quota_(std::move(quota)) {}

  // Before all else: drops what a process that ended while it saved or received
  // has left, and counts the states there are.
  void Open();

  // `chunks`: how many are in the work's state. When it returns OK, the state
  // survives a loss of power. Errors: StateWriter's, and the quota's.
  absl::Status Save(const std::string& id, const std::string& kind,
                    const JobWork& work, int64_t chunks);

  // Brings the work to the newest state that is whole; how many chunks are in
  // it (0: there is none, or only one was ever saved and is damaged). `make`
  // gives the work anew when a damaged state has
  // got into it. RESOURCE_EXHAUSTED: the work has no memory for its state;
  // FAILED_PRECONDITION where the state is of another identity or
  // version; DATA_LOSS where there are more and none is whole.
  absl::StatusOr<int64_t> Restore(
      const std::string& id, const std::string& kind,
      const std::function<absl::StatusOr<std::unique_ptr<JobWork>>()>& make,
      std::unique_ptr<JobWork>* work) const;

  // Of a state, whether it is there or not.
  std::string Path(const std::string& id, int64_t chunks) const;
  // Of which there are states.
  std::set<std::string> JobsWithStates() const;

  void Remove(const std::string& id);

 private:
  // Counts a file as so large; -1: as gone.
  void Count(const std::string& path, int64_t bytes);
  // Chunks of a job's states, ascending.
  std::vector<int64_t> List(const std::string& id) const;

  const std::string directory_;
  const std::shared_ptr<ByteQuota> quota_;
  absl::Mutex mu_;
  std::map<std::string, int64_t> sizes_ ABSL_GUARDED_BY(mu_);  // by path
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_CHECKPOINTS_H_
