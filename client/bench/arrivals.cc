#include "client/bench/arrivals.h"

#include <cmath>

namespace cupola::bench {

Arrivals::Arrivals(ArrivalProcess process, double rate, uint64_t seed)
    : process_(process), rate_(rate), random_(seed) {}

double Arrivals::Next() {
  ++count_;
  if (process_ == ArrivalProcess::kFixed) {
    // From the count, so that rounding does not add up.
    last_ = static_cast<double>(count_) / rate_;
  } else {
    last_ -= std::log(random_.Unit()) / rate_;
  }
  return last_;
}

}  // namespace cupola::bench
