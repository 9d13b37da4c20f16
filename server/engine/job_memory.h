#ifndef CUPOLA_SERVER_ENGINE_JOB_MEMORY_H_
#define CUPOLA_SERVER_ENGINE_JOB_MEMORY_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/retry_later.h"

namespace cupola::engine {

// How much memory the states of jobs may take together: of the one that runs,
// of results that are asked for, and of shards that are merged. Any thread may
// call; charges may outlive it.
class JobMemory {
 public:
  explicit JobMemory(double most) : shared_(std::make_shared<Shared>(most)) {}

  // Gives back what was taken when the last copy goes.
  using Charge = std::shared_ptr<void>;
  // RESOURCE_EXHAUSTED with both numbers: more than there is at all, or, with
  // RetryLater's payload and this one, than is free now.
  static constexpr char kPayload[] = "job-memory";
  absl::StatusOr<Charge> Take(double bytes) const {
    absl::MutexLock lock(&shared_->mu);
    const std::string numbers = absl::StrCat(
        "the job's state takes ", bytes, " bytes of memory, and others' take ",
        shared_->taken, "; accepted: ", shared_->most, " together");
    if (bytes > shared_->most) return absl::ResourceExhaustedError(numbers);
    if (bytes > shared_->most - shared_->taken) {
      absl::Status for_now = RetryLater(numbers, kRetrySeconds);
      for_now.SetPayload(kPayload, absl::Cord());
      return for_now;
    }
    shared_->taken += bytes;
    return Charge(nullptr, [shared = shared_, bytes](void*) {
      absl::MutexLock lock(&shared->mu);
      shared->taken -= bytes;
    });
  }

 private:
  static constexpr double kRetrySeconds = 1;
  struct Shared {
    explicit Shared(double most) : most(most) {}
    const double most;
    absl::Mutex mu;
    double taken ABSL_GUARDED_BY(mu) = 0;
  };
  const std::shared_ptr<Shared> shared_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_MEMORY_H_
