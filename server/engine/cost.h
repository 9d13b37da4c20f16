#ifndef CUPOLA_SERVER_ENGINE_COST_H_
#define CUPOLA_SERVER_ENGINE_COST_H_

#include <cstdint>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/analysis/analysis.h"
#include "server/model/model_config.h"

namespace cupola::engine {

// What a question takes, as the function that makes it tells: of each of its
// sequences, how much work there is beside what the cache may have. A rough
// count is enough: DeviceSpeed measures what an operation's count is worth.
struct Work {
  // Passes of the sequence's tokens through all layers, or a share of one.
  double passes = 0;
  double flops_per_row = 0;  // beside them, for each of the answer's rows
  double flops = 0;          // and however many rows there are
};

// What a request would take, or takes.
struct Estimate {
  double bytes = 0;    // at most: of its answer, and of what it is made of
  double seconds = 0;  // on the device, without the wait
  double wait = 0;     // seconds until its turn comes, about
  // Whether `seconds` rests on measurements of earlier requests.
  bool measured = false;
  int64_t rows = 0, columns = 0;  // of the answer; columns where it has them
  int64_t parts = 0;              // prompts, or the like
  int64_t cached = 0;             // of them in the result cache
};

// Of two requests, one after the other.
Estimate operator+(const Estimate& a, const Estimate& b);

// Floating-point operations of one token's way through all layers, the
// unembedding not included: two for each weight it meets.
double PassFlops(const model::ModelConfig& config);

// How fast one device does each operation's work, learned from what it has
// done. Any thread may call.
class DeviceSpeed {
 public:
  // `flops_per_second`: assumed of an operation that has not been measured.
  explicit DeviceSpeed(double flops_per_second) : assumed_(flops_per_second) {}

  void Learn(analysis::Operation operation, double flops, double seconds);
  double Seconds(analysis::Operation operation, double flops) const;
  // Whether there have been enough batches, and large enough ones, to rely on
  // that.
  bool Measured(analysis::Operation operation, double flops) const;

 private:
  struct Sums {
    int64_t batches = 0;
    double flops = 0, seconds = 0;
    double largest = 0;  // flops
  };
  const double assumed_;
  mutable absl::Mutex mu_;
  std::map<analysis::Operation, Sums> sums_ ABSL_GUARDED_BY(mu_);
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_COST_H_
