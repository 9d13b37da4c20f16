#include "server/analysis/pair_measures.h"

#include <cmath>

namespace cupola::analysis {
namespace {

double Ratio(double above, double below) {
  return below > 0 ? above / below : 0;
}

}  // namespace

double MeasureOf(PairMeasure measure, const PairNumbers& numbers) {
  const double n = static_cast<double>(numbers.tokens);
  const double both = static_cast<double>(numbers.both);
  const double p_a = Ratio(static_cast<double>(numbers.a_count), n);
  const double p_b = Ratio(static_cast<double>(numbers.b_count), n);
  const double p_ab = Ratio(both, n);
  switch (measure) {
    case PairMeasure::kCount:
      return both;
    case PairMeasure::kProbability:
      return p_ab;
    case PairMeasure::kUpstreamCorrelation:
      return Ratio(p_ab - p_a * p_b, std::sqrt(p_a * (1 - p_a) * p_b));
    case PairMeasure::kPhi:
      return Ratio(p_ab - p_a * p_b,
                   std::sqrt(p_a * (1 - p_a) * p_b * (1 - p_b)));
    case PairMeasure::kPearson: {
      const double a = n * numbers.a_squares - numbers.a_sum * numbers.a_sum;
      const double b = n * numbers.b_squares - numbers.b_sum * numbers.b_sum;
      if (!(a > 0) || !(b > 0)) return 0;
      return (n * numbers.products - numbers.a_sum * numbers.b_sum) /
             (std::sqrt(a) * std::sqrt(b));
    }
    case PairMeasure::kJaccard:
      return Ratio(both, static_cast<double>(numbers.a_count) +
                             static_cast<double>(numbers.b_count) - both);
    case PairMeasure::kCosine:
      return Ratio(numbers.products,
                   std::sqrt(numbers.a_squares) * std::sqrt(numbers.b_squares));
  }
  return 0;
}

}  // namespace cupola::analysis
