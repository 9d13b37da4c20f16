#ifndef CUPOLA_CLIENT_BENCH_LOAD_H_
#define CUPOLA_CLIENT_BENCH_LOAD_H_

#include <cstdint>
#include <optional>
#include <queue>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/bench/arrivals.h"
#include "client/bench/outcome.h"
#include "client/bench/window.h"

namespace cupola::bench {

// A stream of calls. One thread drives it (RunUntil, Stop, and the destructor,
// which needs a successful Stop before); outcomes come from others.
class Load {
 public:
  virtual ~Load() = default;
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  // Keeps the calls coming until `end`.
  virtual void RunUntil(absl::Time end) = 0;
  // Starts no more calls and waits for those in flight, at most so long; how
  // many are left.
  int64_t Stop(absl::Duration patience);
  // The first index that was not asked.
  int64_t next_index() const;

 protected:
  // `first_index`: of the first question. `ask` and `recorder` outlive this.
  Load(int64_t first_index, const Ask& ask, Recorder* recorder);

  // Asks the next question; its latency counts from `start`.
  void Start(absl::Time start) ABSL_LOCKS_EXCLUDED(mu_);
  // A call has ended, and is not in flight any more.
  virtual void Ended(const Outcome& /*outcome*/)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {}

  mutable absl::Mutex mu_;
  int64_t in_flight_ ABSL_GUARDED_BY(mu_) = 0;

 private:
  const Ask& ask_;
  Recorder* const recorder_;
  int64_t next_index_ ABSL_GUARDED_BY(mu_);
};

// So many clients, each of which asks again when it has its answer. After an
// error it waits as long as the server asks it to, else kErrorPause.
class ClosedLoad final : public Load {
 public:
  static constexpr absl::Duration kErrorPause = absl::Milliseconds(100);

  ClosedLoad(int64_t clients, int64_t first_index, const Ask& ask,
             Recorder* recorder);
  void RunUntil(absl::Time end) override;

 private:
  void Ended(const Outcome& outcome) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // When each client that waits asks again; the soonest on top.
  std::priority_queue<absl::Time, std::vector<absl::Time>, std::greater<>> due_
      ABSL_GUARDED_BY(mu_);
};

// Calls that start when they arrive, however slow the answers. Latencies count
// from the intended start, so that a call which had to wait for its turn is not
// reported as a fast one (no coordinated omission).
class OpenLoad final : public Load {
 public:
  // No more than `max_in_flight` calls at a time: later ones wait here, and
  // their latency grows.
  OpenLoad(Arrivals arrivals, int64_t max_in_flight, int64_t first_index,
           const Ask& ask, Recorder* recorder);
  void RunUntil(absl::Time end) override;

  // Arrivals up to the end of the last RunUntil that had to wait and were not
  // started; of no use afterwards for anything else.
  int64_t CountBacklog();

 private:
  Arrivals arrivals_;
  const int64_t max_in_flight_;
  std::optional<absl::Time> begin_;
  absl::Time next_, end_;
};

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_LOAD_H_
