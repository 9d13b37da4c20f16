#ifndef CUPOLA_SERVER_ENGINE_REQUEST_CONTEXT_H_
#define CUPOLA_SERVER_ENGINE_REQUEST_CONTEXT_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace cupola::engine {

// What a request keeps until its answer has been sent. Thread-safe.
class HeldUntilSent {
 public:
  void Add(std::shared_ptr<void> what) {
    absl::MutexLock lock(&mu_);
    held_.push_back(std::move(what));
  }

 private:
  absl::Mutex mu_;
  std::vector<std::shared_ptr<void>> held_ ABSL_GUARDED_BY(mu_);
};

// How a request is served, whatever it asks.
struct RequestContext {
  absl::Time arrival = absl::Now();
  absl::Time deadline = absl::InfiniteFuture();
  // Set by the transport when the client has gone.
  std::shared_ptr<std::atomic<bool>> cancelled =
      std::make_shared<std::atomic<bool>>(false);
  // Who asks, as far as the transport knows: clients share a device fairly by
  // it. The connection that the request came by; empty: the server itself.
  std::string client;
  // A job's work: computed when nobody waits for anything else, never together
  // with other requests, and not cached.
  bool bulk = false;
  // Lives until the transport has sent the answer; null: nothing is kept longer
  // than until it is made.
  std::shared_ptr<HeldUntilSent> held;
  // Nothing is computed: the answer tells what it would take.
  bool dry_run = false;
};

// CANCELLED or DEADLINE_EXCEEDED once nobody waits any more, else OK.
inline absl::Status StillWanted(const RequestContext& context) {
  if (context.cancelled->load(std::memory_order_relaxed)) {
    return absl::CancelledError("the client has cancelled the request");
  }
  if (absl::Now() > context.deadline) {
    return absl::DeadlineExceededError("the request's deadline has passed");
  }
  return absl::OkStatus();
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_REQUEST_CONTEXT_H_
