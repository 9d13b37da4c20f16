#ifndef CUPOLA_CLIENT_BENCH_STATISTICS_H_
#define CUPOLA_CLIENT_BENCH_STATISTICS_H_

#include <cstdint>
#include <vector>

namespace cupola::bench {

// Of latencies, in seconds; zeros where there are none.
struct LatencySummary {
  int64_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

// The nearest rank: the smallest value that at least `percent` percent of the
// values do not exceed. REQUIRES: `sorted` ascends and is not empty;
// 0 <= percent <= 100.
double Percentile(const std::vector<double>& sorted, double percent);

LatencySummary Summarize(std::vector<double> seconds);

// What the stable-window rule looks at.
struct WindowRates {
  double throughput = 0;  // answers per second
  double latency = 0;     // the median
};

inline constexpr int kStableWindows = 3;
inline constexpr double kStableRatio = 1.1;

// Whether throughput and latency have settled: over the last kStableWindows
// windows the largest of each is at most kStableRatio times the smallest. Never
// with fewer windows, nor where one of them had no answer.
bool IsStable(const std::vector<WindowRates>& windows);

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_STATISTICS_H_
