#ifndef CUPOLA_SERVER_ANALYSIS_TOKEN_HASH_H_
#define CUPOLA_SERVER_ANALYSIS_TOKEN_HASH_H_

#include <cstdint>

#include "server/analysis/top_examples.h"

// What accumulators choose tokens by when they keep a sample of them: it looks
// random and hangs on nothing but where the token stands. States are sorted by
// it, so it never changes.

namespace cupola::analysis {

// SplitMix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom
// number generators", 2014): every bit of the input has a say in every bit.
inline uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

inline uint64_t HashOfToken(const Example& token) {
  return MixBits(
      MixBits(static_cast<uint64_t>(token.row) + 0x9e3779b97f4a7c15) +
      static_cast<uint64_t>(token.position));
}

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_TOKEN_HASH_H_
