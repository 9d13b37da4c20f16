#ifndef CUPOLA_CLIENT_BENCH_REPORT_H_
#define CUPOLA_CLIENT_BENCH_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/bench/caller.h"
#include "client/bench/options.h"
#include "client/bench/point.h"

namespace cupola::bench {

// One point of a sweep with what it was asked to be.
struct PointReport {
  int64_t clients = 0;  // of a closed loop; else 0
  double rate = 0;      // of an open loop; else 0
  Point point;
  // Calls that were still in flight long after the end, and arrivals of an open
  // loop that had waited in vain for one of the calls in flight to end: the
  // latencies of neither are known, and all are longer than those reported.
  int64_t unfinished = 0, backlog = 0;
};

// The results as JSON, UTF-8, format 1:
//
//   {"tool": "cupola_bench", "format": 1, "time": RFC 3339 of the start,
//    "address", "model", "dictionary", "loop": "closed" or "open",
//    "arrivals": "poisson", "fixed" (open) or null, "seed",
//    "mix": {"features", "ablate", "run", "lengths": [...], "repeat",
//            "repeated_prompts"},
//    "window_seconds", "max_windows", "connections", "deadline_seconds",
//    "points": [{
//      "clients": number or null, "rate": number or null,
//      "stable", "windows", "seconds", "throughput",   answers per second
//      "latency_seconds": {"count", "mean", "p50", "p90", "p95", "p99", "max"},
//      "codes": {CODE: calls, ...}, "hits", "bytes",
//      "queue_seconds_mean", "compute_seconds_mean",   the server's own
//      "refusals_without_delay", "unfinished", "backlog"}, ...]}
//
// An open loop's latencies count from the intended start.
std::string ToJson(const Options& options, const Subject& subject,
                   const std::string& time,
                   const std::vector<PointReport>& points);

// The table for people: its heading, and a line for each point.
std::string TableHeading(const Options& options);
std::string TableLine(const PointReport& report);

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_REPORT_H_
