#ifndef CUPOLA_SERVER_ENGINE_DEVICE_QUEUE_H_
#define CUPOLA_SERVER_ENGINE_DEVICE_QUEUE_H_

#include <cstdint>
#include <limits>
#include <list>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/client_shares.h"
#include "server/engine/part.h"

namespace cupola::engine {

// The bounded queue in front of one device. Requests push their parts all at
// once or not at all; the worker pulls a batch when it is free, and clients
// take turns in what it pulls. Any thread may push, one pulls.
class DeviceQueue {
 public:
  struct Options {
    // Jobs' parts are counted by themselves.
    int64_t max_parts = 1 << 16;
    int64_t max_parts_per_client = 1 << 15;
    int64_t batch_tokens = 4096;
  };
  explicit DeviceQueue(const Options& options) : options_(options) {}

  // RESOURCE_EXHAUSTED when the queue has no room for all of them, or none for
  // so many of one client, UNAVAILABLE after Close; then no flight lands here.
  // All parts are of one request.
  absl::Status Push(std::vector<Part> parts);

  // What the worker takes now.
  struct Wanted {
    bool wait = true;      // until there is something; else nothing of a job's
    bool stepwise = true;  // also parts whose work is done in steps
    // Only parts that take at most as long, and a batch of such, but for work
    // in steps; for who works at something long meanwhile.
    double most_seconds = std::numeric_limits<double>::infinity();
  };
  // Takes the next batch (see FormBatch). Parts nobody waits for any more leave
  // here, with their status. Empty: the queue is closed, or has nothing that is
  // wanted. Parts of stepwise work share a batch where they are of one request,
  // whatever their lengths.
  std::vector<Part> PopBatch(const Wanted& wanted);
  std::vector<Part> PopBatch() { return PopBatch(Wanted()); }

  // Ends everything queued with `status` and lets PopBatch return empty.
  void Close(absl::Status status);

  int64_t depth() const;       // parts
  int64_t bulk_depth() const;  // of them jobs'

  // For tests: while held, PopBatch waits, so that what a batch holds does not
  // depend on timing.
  void HoldForTesting(bool held);

 private:
  std::list<Part> TakeUnwanted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<Part> TakeBatch(const Wanted& wanted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  ClientShares& SharesOf(bool bulk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return bulk ? bulk_shares_ : shares_;
  }
  // Moves a part out of the queue.
  void Take(std::list<Part>::iterator part, std::list<Part>& to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  mutable absl::Mutex mu_;
  std::list<Part> parts_ ABSL_GUARDED_BY(mu_);
  int64_t bulk_parts_ ABSL_GUARDED_BY(mu_) = 0;
  // Of what people wait for, and of jobs.
  ClientShares shares_ ABSL_GUARDED_BY(mu_), bulk_shares_ ABSL_GUARDED_BY(mu_);
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DEVICE_QUEUE_H_
