#ifndef CUPOLA_CLIENT_BENCH_WINDOW_H_
#define CUPOLA_CLIENT_BENCH_WINDOW_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/bench/outcome.h"

namespace cupola::bench {

// What ended during some stretch of time.
struct Window {
  std::vector<double> latencies;         // seconds, of answers (code OK)
  std::map<std::string, int64_t> codes;  // calls by status code's name
  int64_t hits = 0;                      // answers from the server's cache
  int64_t bytes = 0;
  // RESOURCE_EXHAUSTED that does not tell its client when to come back.
  int64_t refusals_without_delay = 0;
  double queue_seconds = 0, compute_seconds = 0;  // sums over answers

  void Add(const Outcome& outcome, double latency);
  void Merge(const Window& other);
};

// Collects outcomes from any thread.
class Recorder {
 public:
  void Add(const Outcome& outcome, double latency);
  // What came since the last time.
  Window Cut();

 private:
  absl::Mutex mu_;
  Window window_ ABSL_GUARDED_BY(mu_);
};

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_WINDOW_H_
