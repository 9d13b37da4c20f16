#include "client/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace cupola::bench {

double Percentile(const std::vector<double>& sorted, double percent) {
  const double rank =
      std::ceil(percent * static_cast<double>(sorted.size()) / 100);
  const auto index = static_cast<size_t>(std::max(rank, 1.0)) - 1;
  return sorted[std::min(index, sorted.size() - 1)];
}

LatencySummary Summarize(std::vector<double> seconds) {
  LatencySummary summary;
  if (seconds.empty()) return summary;
  std::sort(seconds.begin(), seconds.end());
  summary.count = static_cast<int64_t>(seconds.size());
  summary.mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) /
                 static_cast<double>(seconds.size());
  summary.p50 = Percentile(seconds, 50);
  summary.p90 = Percentile(seconds, 90);
  summary.p95 = Percentile(seconds, 95);
  summary.p99 = Percentile(seconds, 99);
  summary.max = seconds.back();
  return summary;
}

bool IsStable(const std::vector<WindowRates>& windows) {
  if (windows.size() < kStableWindows) return false;
  const auto settled = [&](double WindowRates::*rate) {
    double least = INFINITY, most = 0;
    for (auto w = windows.end() - kStableWindows; w != windows.end(); ++w) {
      least = std::min(least, *w.*rate);
      most = std::max(most, *w.*rate);
    }
    return least > 0 && most <= kStableRatio * least;
  };
  return settled(&WindowRates::throughput) && settled(&WindowRates::latency);
}

}  // namespace cupola::bench
