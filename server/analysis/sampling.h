#ifndef CUPOLA_SERVER_ANALYSIS_SAMPLING_H_
#define CUPOLA_SERVER_ANALYSIS_SAMPLING_H_

#include <cstdint>
#include <vector>

// How the next token is chosen from a row of logits. Pure functions; any thread
// may call.

namespace cupola::analysis {

// Each step narrows or reshapes what the one before left, in the order of
// transformers' logits warpers: temperature, top_k, top_p.
struct Sampling {
  // Logits are divided by it; 0: greedy, the largest logit (the lowest token
  // wins ties), and the others do not apply.
  double temperature = 0;
  // Only the k largest logits, and those equal to the k-th; 0: all.
  int64_t top_k = 0;
  // Only the most probable tokens: each as long as those before it have less
  // than this together, so at least one. The lowest token comes first among
  // equals. 1: all.
  double top_p = 1;
};

// The chosen token, -1 where no logit is a number above -infinity. NaN is never
// chosen. `uniform` in [0, 1) decides, by the inverse of the distribution
// function over ascending tokens; greedy does without.
int32_t ChooseToken(const float* logits, int64_t n, const Sampling& sampling,
                    double uniform);

// Random numbers by counter instead of by state: the same (key, sample, step)
// is the same number in [0, 1), whatever else is drawn and in which order.
// `key` stands for the seed and the prompt: see SamplingKey.
double UniformAt(uint64_t key, uint64_t sample, uint64_t step);
uint64_t SamplingKey(uint64_t seed, const std::vector<int32_t>& prompt);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_SAMPLING_H_
