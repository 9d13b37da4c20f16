#ifndef CUPOLA_CLIENT_BENCH_ARRIVALS_H_
#define CUPOLA_CLIENT_BENCH_ARRIVALS_H_

#include <cstdint>

#include "client/bench/random.h"

namespace cupola::bench {

enum class ArrivalProcess {
  kPoisson,  // independent clients: exponential gaps of mean 1 / rate
  kFixed,    // a metronome: gaps of 1 / rate
};

// When the requests of an open loop are to start, whatever becomes of those
// before them. The same seed gives the same times.
class Arrivals {
 public:
  // REQUIRES: rate > 0, in requests per second.
  Arrivals(ArrivalProcess process, double rate, uint64_t seed);

  // The next arrival, in seconds from the loop's start; ascending.
  double Next();

 private:
  const ArrivalProcess process_;
  const double rate_;
  Random random_;
  int64_t count_ = 0;
  double last_ = 0;
};

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_ARRIVALS_H_
