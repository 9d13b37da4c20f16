#ifndef CUPOLA_SERVER_ENGINE_REQUEST_CONTEXT_H_
#define CUPOLA_SERVER_ENGINE_REQUEST_CONTEXT_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace cupola::engine {

// How a request is served, whatever it asks.
struct RequestContext {
  absl::Time arrival = absl::Now();
  absl::Time deadline = absl::InfiniteFuture();
  // Set by the transport when the client has gone.
  std::shared_ptr<std::atomic<bool>> cancelled =
      std::make_shared<std::atomic<bool>>(false);
  // Who asks, as far as the transport knows: fairness and quotas go by it. A
  // token's name, else the peer's address without its port.
  std::string client;
  // A job's work: computed when nobody waits for anything else, never together
  // with other requests, and not cached.
  bool bulk = false;
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
