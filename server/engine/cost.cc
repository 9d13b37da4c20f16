#include "server/engine/cost.h"

#include <algorithm>

namespace cupola::engine {
namespace {

// Of a batch, whatever is in it.
constexpr double kBatchSeconds = 1e-3;
// Weight of what was known before, at each new batch: the last five or so
// count.
constexpr double kMemory = 0.8;
constexpr int64_t kEnoughBatches = 3;
// What is so many times larger than all that was seen may have another speed.
constexpr double kScales = 100;

}  // namespace

Estimate operator+(const Estimate& a, const Estimate& b) {
  Estimate sum = a;
  sum.bytes += b.bytes;
  sum.seconds += b.seconds;
  sum.wait = std::max(a.wait, b.wait);
  sum.measured = a.measured && b.measured;
  sum.parts += b.parts;
  sum.cached += b.cached;
  return sum;
}

double PassFlops(const model::ModelConfig& config) {
  const double attention =
      static_cast<double>(config.d_model) * static_cast<double>(config.d_head) *
      2 * static_cast<double>(config.n_heads + config.n_kv_heads);
  const double mlp = (config.gated_mlp ? 3.0 : 2.0) *
                     static_cast<double>(config.d_model) *
                     static_cast<double>(config.d_mlp);
  return 2 * config.n_layers * (attention + mlp);
}

void DeviceSpeed::Learn(analysis::Operation operation, double flops,
                        double seconds) {
  if (!(flops > 0)) return;  // nothing that could be scaled
  absl::MutexLock lock(&mu_);
  Sums& sums = sums_[operation];
  ++sums.batches;
  sums.largest = std::max(kMemory * sums.largest, flops);
  sums.flops = kMemory * sums.flops + flops;
  sums.seconds =
      kMemory * sums.seconds + std::max(0.0, seconds - kBatchSeconds);
}

double DeviceSpeed::Seconds(analysis::Operation operation, double flops) const {
  absl::MutexLock lock(&mu_);
  const auto found = sums_.find(operation);
  if (found == sums_.end() || found->second.flops <= 0) {
    return kBatchSeconds + flops / assumed_;
  }
  return kBatchSeconds + flops * found->second.seconds / found->second.flops;
}

bool DeviceSpeed::Measured(analysis::Operation operation, double flops) const {
  absl::MutexLock lock(&mu_);
  const auto found = sums_.find(operation);
  return found != sums_.end() && found->second.batches >= kEnoughBatches &&
         flops <= kScales * found->second.largest;
}

}  // namespace cupola::engine
