#ifndef CUPOLA_SERVER_ENGINE_LOADER_H_
#define CUPOLA_SERVER_ENGINE_LOADER_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/engine/executor.h"
#include "server/engine/load_slot.h"
#include "server/engine/requests.h"
#include "server/engine/retry_later.h"
#include "server/engine/wait_list.h"

namespace cupola::engine {

// Fills slots: loads run one after another on a thread of the loader's own, and
// whoever asked is told, or gives up when his request's time has come. Any
// thread may call; callbacks must not block.
class Loader {
 public:
  template <typename T>
  using Done = typename LoadSlot<T>::Done;

  // How one thing is loaded. Both functions run on the loading thread; `loaded`
  // after a success, under the lock that the slot is filled under.
  template <typename T>
  struct Load {
    std::string what;  // for messages: model "NAME"
    std::function<absl::StatusOr<T>()> work;
    std::function<void(absl::Duration)> loaded;
  };

  // `mu` guards the slots and outlives this.
  explicit Loader(absl::Mutex* mu) : mu_(mu) {}

  // Calls `done` once: at once when the slot is settled, else when its load,
  // started here or before, ends (FAILED_PRECONDITION with the reason when it
  // fails, UNAVAILABLE after Stop), or with DEADLINE_EXCEEDED or CANCELLED when
  // the request cannot wait for that; the load goes on. What another try may
  // mend, RESOURCE_EXHAUSTED (no memory now) and UNAVAILABLE (a disk that does
  // not answer), is told to those who wait and forgotten: who asks next tries
  // again.
  template <typename T>
  void Acquire(LoadSlot<T>& slot, Load<T> load, const RequestContext& context,
               Done<T> done);

  // The same of an empty or loading slot, for who holds the lock already.
  // False, and `done` is not called: the loader has stopped.
  template <typename T>
  bool Join(LoadSlot<T>& slot, Load<T> load, const RequestContext& context,
            Done<T> done) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Ends everybody who waits, and every load but the one that runs, which it
  // waits for. Nothing loads any more.
  void Stop();

 private:
  static constexpr double kRetrySeconds = 1;
  static absl::Status Stopped();  // UNAVAILABLE
  template <typename T>
  void Run(LoadSlot<T>& slot, const Load<T>& load);

  bool stopping() const {
    absl::MutexLock lock(mu_);
    return stopping_;
  }

  absl::Mutex* const mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  WaitList waiting_;
  Executor executor_{1};  // last: its tasks use everything above
};

template <typename T>
void Loader::Acquire(LoadSlot<T>& slot, Load<T> load,
                     const RequestContext& context, Done<T> done) {
  absl::StatusOr<T> settled = absl::UnknownError("");
  {
    absl::MutexLock lock(mu_);
    if (slot.ready()) {
      settled = slot.value();
    } else if (slot.failed()) {
      settled = slot.status();
    } else if (Join(slot, std::move(load), context, done)) {
      return;
    } else {
      settled = Stopped();
    }
  }
  done(std::move(settled));
}

template <typename T>
bool Loader::Join(LoadSlot<T>& slot, Load<T> load,
                  const RequestContext& context, Done<T> done) {
  if (stopping_) return false;
  if (slot.Join(waiting_.Add<T>(context, std::move(done)))) {
    executor_.Run([this, &slot, load = std::move(load)] { Run(slot, load); });
  }
  return true;
}

template <typename T>
void Loader::Run(LoadSlot<T>& slot, const Load<T>& load) {
  const absl::Time start = absl::Now();
  absl::StatusOr<T> result = Stopped();
  if (!stopping()) result = load.work();
  const bool passes = absl::IsUnavailable(result.status()) ||
                      absl::IsResourceExhausted(result.status());
  if (!result.ok() && !absl::IsUnavailable(result.status())) {
    const std::string why =
        absl::StrCat(load.what, " failed to load: ", result.status().message());
    result = passes ? RetryLater(why, kRetrySeconds)
                    : absl::FailedPreconditionError(why);
  }
  std::vector<Done<T>> waiters;
  {
    absl::MutexLock lock(mu_);
    waiters = slot.Settle(result);
    if (passes) slot.Reset();
    if (result.ok()) load.loaded(absl::Now() - start);
  }
  for (const Done<T>& waiter : waiters) waiter(result);
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_LOADER_H_
