#ifndef CUPOLA_SERVER_ANALYSIS_PAIR_SAMPLES_H_
#define CUPOLA_SERVER_ANALYSIS_PAIR_SAMPLES_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "server/analysis/analysis.h"
#include "server/analysis/sandwich.h"

namespace cupola::analysis {

// count > 0: so many samples of each token are drawn, pairs of slots uniform in
// [0, k_out) x [0, k_in) of its active latents, from the seed, the token's
// place among its sequence's rows and the sample's number: the same whatever
// else is asked at the time. 0: samples are given.
struct SampleDraw {
  int64_t count = 0;
  uint64_t seed = 0;
};

// An input latent that is moved and an output latent that is read at a token,
// [s] each, on the sandwich's device.
struct PairSamples {
  at::Tensor token, in, out;  // int64
  at::Tensor delta;           // float32; undefined where none was given

  int64_t size() const { return token.size(0); }
};

// A sequence of given samples carries them in Sequence::lists: rows, input
// latents, output latents and, where there are any, the bits of the deltas
// (float32 as int32). `sandwich`: of that sequence's rows.
PairSamples SamplesOf(const SampleDraw& draw, const Sandwich& sandwich,
                      const Sequence& sequence);

// The input latents' activations at their tokens, [s]: 0 where not active.
at::Tensor Strengths(const ActiveLatents& active, const PairSamples& samples);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_PAIR_SAMPLES_H_
