#ifndef CUPOLA_CLIENT_BENCH_RANDOM_H_
#define CUPOLA_CLIENT_BENCH_RANDOM_H_

#include <cstdint>

namespace cupola::bench {

// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014): the same numbers on every machine and library, and a
// generator per request costs nothing.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // In (0, 1].
  double Unit() { return static_cast<double>((Next() >> 11) + 1) * 0x1p-53; }
  // In [0, end). The bias of the remainder is below end / 2^64.
  uint64_t Below(uint64_t end) { return Next() % end; }

 private:
  uint64_t state_;
};

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_RANDOM_H_
