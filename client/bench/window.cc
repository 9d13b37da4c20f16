#include "client/bench/window.h"

#include <utility>

namespace cupola::bench {

void Window::Add(const Outcome& outcome, double latency) {
  ++codes[absl::StatusCodeToString(outcome.code)];
  if (outcome.code == absl::StatusCode::kResourceExhausted &&
      !outcome.retry_delay.has_value()) {
    ++refusals_without_delay;
  }
  if (outcome.code != absl::StatusCode::kOk) return;
  latencies.push_back(latency);
  hits += outcome.from_cache;
  bytes += outcome.bytes;
  queue_seconds += outcome.queue_seconds;
  compute_seconds += outcome.compute_seconds;
}

void Window::Merge(const Window& other) {
  latencies.insert(latencies.end(), other.latencies.begin(),
                   other.latencies.end());
  for (const auto& [code, count] : other.codes) codes[code] += count;
  hits += other.hits;
  bytes += other.bytes;
  refusals_without_delay += other.refusals_without_delay;
  queue_seconds += other.queue_seconds;
  compute_seconds += other.compute_seconds;
}

void Recorder::Add(const Outcome& outcome, double latency) {
  absl::MutexLock lock(&mu_);
  window_.Add(outcome, latency);
}

Window Recorder::Cut() {
  absl::MutexLock lock(&mu_);
  return std::exchange(window_, Window());
}

}  // namespace cupola::bench
