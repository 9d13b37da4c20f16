#ifndef CUPOLA_CLIENT_BENCH_POINT_H_
#define CUPOLA_CLIENT_BENCH_POINT_H_

#include <cstdint>

#include "absl/time/time.h"
#include "client/bench/load.h"
#include "client/bench/statistics.h"
#include "client/bench/window.h"

namespace cupola::bench {

struct PointOptions {
  absl::Duration window = absl::Seconds(2);
  int64_t max_windows = 15;
};

// What one load (a number of clients, or a rate) has come to: the sums and
// percentiles of its last kStableWindows windows, or of fewer where it had no
// more. What was before is the warm-up.
struct Point {
  bool stable = false;  // by the stable-window rule; else it ran out of windows
  int64_t windows = 0;  // run altogether
  double seconds = 0;   // that the numbers below cover
  double throughput = 0;  // answers per second
  LatencySummary latency;
  Window counts;  // without its latencies
};

// Runs `load` until it is stable or max_windows are over.
Point RunPoint(const PointOptions& options, Load* load, Recorder* recorder);

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_POINT_H_
