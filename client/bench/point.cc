#include "client/bench/point.h"

#include <deque>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace cupola::bench {
namespace {

struct TimedWindow {
  Window window;
  double seconds = 0;
};

}  // namespace

Point RunPoint(const PointOptions& options, Load* load, Recorder* recorder) {
  Point point;
  std::deque<TimedWindow> kept;
  std::vector<WindowRates> rates;
  absl::Time begin = absl::Now();
  while (!point.stable && point.windows < options.max_windows) {
    load->RunUntil(begin + options.window);
    Window window = recorder->Cut();
    const absl::Time end = absl::Now();
    const double seconds = absl::ToDoubleSeconds(end - begin);
    begin = end;
    ++point.windows;
    rates.push_back({static_cast<double>(window.latencies.size()) / seconds,
                     Summarize(window.latencies).p50});
    kept.push_back({std::move(window), seconds});
    if (kept.size() > kStableWindows) kept.pop_front();
    point.stable = IsStable(rates);
  }
  for (const TimedWindow& one : kept) {
    point.counts.Merge(one.window);
    point.seconds += one.seconds;
  }
  point.latency = Summarize(std::exchange(point.counts.latencies, {}));
  if (point.seconds > 0) {
    point.throughput = static_cast<double>(point.latency.count) / point.seconds;
  }
  return point;
}

}  // namespace cupola::bench
