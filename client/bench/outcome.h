#ifndef CUPOLA_CLIENT_BENCH_OUTCOME_H_
#define CUPOLA_CLIENT_BENCH_OUTCOME_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace cupola::bench {

// How one call ended.
struct Outcome {
  absl::StatusCode code = absl::StatusCode::kOk;
  // What an error asks its client to wait.
  std::optional<absl::Duration> retry_delay;
  bool from_cache = false;
  int64_t bytes = 0;  // of the answer
  // The server's own stages; 0 for an error.
  double queue_seconds = 0, compute_seconds = 0;
};

// Asks question number `index` and returns at once; `done` is called once,
// later, from another thread.
using Ask =
    std::function<void(int64_t index, std::function<void(Outcome)> done)>;

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_OUTCOME_H_
