#ifndef CUPOLA_SERVER_ANALYSIS_PAIR_MEASURES_H_
#define CUPOLA_SERVER_ANALYSIS_PAIR_MEASURES_H_

#include <cstdint>

namespace cupola::analysis {

// What is known of two latents of one dictionary over N tokens: n_a, n_b tokens
// at which each is active, n_ab at which both are; sums, sums of squares and of
// products of the activations.
struct PairNumbers {
  int64_t tokens = 0;
  int64_t a_count = 0, b_count = 0, both = 0;
  double a_sum = 0, b_sum = 0, a_squares = 0, b_squares = 0, products = 0;
};

// With p = n / N. 0 where a denominator is 0.
enum class PairMeasure : uint8_t {
  kCount = 1,        // n_ab
  kProbability = 2,  // p_ab
  // Source notebook D's: (p_ab - p_a p_b) / sqrt(p_a (1 - p_a) p_b), which is
  // not symmetric: the factor (1 - p_b) is not there.
  kUpstreamCorrelation = 3,
  // Of being active or not, symmetric: with p_b (1 - p_b) under the root.
  kPhi = 4,
  // Of the activations, zeros included.
  kPearson = 5,
  kJaccard = 6,  // n_ab / (n_a + n_b - n_ab)
  kCosine = 7,   // of the activations, not centred
};

double MeasureOf(PairMeasure measure, const PairNumbers& numbers);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_PAIR_MEASURES_H_
