#ifndef CUPOLA_SERVER_ENGINE_ADMISSION_H_
#define CUPOLA_SERVER_ENGINE_ADMISSION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/cost.h"
#include "server/engine/request_context.h"

namespace cupola::engine {

// Lets requests in as long as what they may take together, by their own
// estimates, fits: one per device. Jobs are counted by themselves, so that they
// keep nobody out. Any thread may call; outlives its tickets.
class Admission {
 public:
  struct Options {
    int64_t budget_bytes = 8LL << 30;
    // Prompts of all requests that wait, and of one client's.
    int64_t max_parts = 1 << 16, max_parts_per_client = 1 << 15;
  };
  explicit Admission(const Options& options) : options_(options) {}

  // Counts an admitted request until it is destroyed.
  class Ticket {
   public:
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    // The request has turned out to take at least so many bytes.
    void AtLeast(double bytes);
    // From here on it takes bytes alone, no device.
    void ComputingIsDone();

   private:
    friend class Admission;
    Ticket(Admission* admission, const RequestContext& context,
           const Estimate& estimate);
    void Finish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(admission_->mu_);
    Admission* const admission_;
    const std::string client_;
    const bool bulk_;
    const int64_t parts_;
    const double seconds_;
    double bytes_ ABSL_GUARDED_BY(admission_->mu_);
    bool computing_ ABSL_GUARDED_BY(admission_->mu_) = true;
  };

  // RESOURCE_EXHAUSTED: the request needs more than the whole budget (both
  // numbers), or more than is free (with the payload "retry-delay-ms", when to
  // come again), or too many prompts wait already (the same).
  // DEADLINE_EXCEEDED: by measured estimates not even a quarter of the work
  // could be done in time. A job's request is refused only for what it needs
  // itself: it has nobody to come again for it.
  absl::StatusOr<std::unique_ptr<Ticket>> Admit(const Estimate& estimate,
                                                const RequestContext& context,
                                                absl::Time now);

  // Seconds before a request of `client` that takes `seconds` is done with
  // waiting: its client's earlier ones, and of every other client's as much as
  // a fair queue takes first.
  double Wait(const std::string& client, double seconds) const;

  int64_t budget_bytes() const { return options_.budget_bytes; }
  int64_t bytes_in_flight() const;

 private:
  struct Pending {
    int64_t requests = 0, parts = 0;
    double seconds = 0;
  };
  double WaitLocked(const std::string& client, double seconds) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  mutable absl::Mutex mu_;
  // Of tickets that are not a job's.
  double bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t requests_ ABSL_GUARDED_BY(mu_) = 0;
  double bulk_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t parts_ ABSL_GUARDED_BY(mu_) = 0;  // that wait
  std::map<std::string, Pending> clients_ ABSL_GUARDED_BY(mu_);
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ADMISSION_H_
