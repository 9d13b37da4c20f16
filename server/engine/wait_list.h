#ifndef CUPOLA_SERVER_ENGINE_WAIT_LIST_H_
#define CUPOLA_SERVER_ENGINE_WAIT_LIST_H_

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request_context.h"

namespace cupola::engine {

// Requests that wait for something which nobody can hurry, such as the end of a
// load, and leave when their own time is up: a deadline has no callback and a
// cancellation is a flag, so a thread looks at both a hundred times a second
// while there is somebody to look after. Any thread may call.
class WaitList {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;

  WaitList();
  ~WaitList();  // tells nobody: what they wait for does

  // A callback to wait with instead of `done`. `done` is called once: with what
  // the callback gets or, when that is late, by the list's thread with the
  // reason why the request is not wanted any more (see StillWanted).
  template <typename T>
  Done<T> Add(const RequestContext& context, Done<T> done) {
    auto waiter = std::make_shared<WaiterFor<T>>(context, std::move(done));
    Watch(waiter);
    return
        [waiter](absl::StatusOr<T> value) { waiter->Tell(std::move(value)); };
  }

  // Ends all who wait now with `status`.
  void EndAll(const absl::Status& status);

 private:
  struct Waiter {
    explicit Waiter(const RequestContext& request) : context(request) {}
    virtual ~Waiter() = default;
    virtual void End(const absl::Status& status) = 0;
    const RequestContext context;
    std::atomic<bool> told{false};
  };
  template <typename T>
  struct WaiterFor final : Waiter {
    WaiterFor(const RequestContext& request, Done<T> callback)
        : Waiter(request), done(std::move(callback)) {}
    void Tell(absl::StatusOr<T> value) {
      if (told.exchange(true)) return;
      // Frees what the callback holds with the call.
      std::exchange(done, nullptr)(std::move(value));
    }
    void End(const absl::Status& status) override { Tell(status); }
    Done<T> done;
  };
  using Waiters = std::vector<std::shared_ptr<Waiter>>;

  void Watch(std::shared_ptr<Waiter> waiter);
  void Loop();

  absl::Mutex mu_;
  Waiters waiters_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_WAIT_LIST_H_
