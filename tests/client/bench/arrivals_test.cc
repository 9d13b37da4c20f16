#include "client/bench/arrivals.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace cupola::bench {
namespace {

TEST(ArrivalsTest, FixedIsAMetronome) {
  Arrivals arrivals(ArrivalProcess::kFixed, 8, 1);
  for (int i = 1; i <= 1'000'000; ++i) {
    ASSERT_EQ(arrivals.Next(), i / 8.0);
  }
}

// A Poisson process: the gaps have mean and deviation 1 / rate, exp(-1) of them
// are longer than that, and the counts of disjoint seconds have mean and
// variance `rate`.
TEST(ArrivalsTest, PoissonHasExponentialGaps) {
  constexpr double kRate = 50;
  constexpr int kCount = 500'000;
  Arrivals arrivals(ArrivalProcess::kPoisson, kRate, 7);
  double last = 0, sum = 0, squares = 0;
  int longer = 0;
  std::vector<int> per_second;
  for (int i = 0; i < kCount; ++i) {
    const double next = arrivals.Next();
    ASSERT_GE(next, last);
    const double gap = (next - last) * kRate;
    sum += gap;
    squares += gap * gap;
    longer += gap > 1;
    const auto second = static_cast<size_t>(next);
    if (per_second.size() <= second) per_second.resize(second + 1);
    ++per_second[second];
    last = next;
  }
  const double mean = sum / kCount;
  EXPECT_NEAR(mean, 1, 0.01);
  EXPECT_NEAR(squares / kCount - mean * mean, 1, 0.02);
  EXPECT_NEAR(static_cast<double>(longer) / kCount, std::exp(-1), 0.005);
  double variance = 0;
  per_second.pop_back();  // not whole
  for (const int count : per_second) variance += std::pow(count - kRate, 2);
  EXPECT_NEAR(variance / static_cast<double>(per_second.size()), kRate, 2.5);
}

TEST(ArrivalsTest, AreAFunctionOfTheSeed) {
  Arrivals one(ArrivalProcess::kPoisson, 10, 3), same(one),
      other(ArrivalProcess::kPoisson, 10, 4);
  const double first = one.Next();
  EXPECT_EQ(first, same.Next());
  EXPECT_NE(first, other.Next());
}

}  // namespace
}  // namespace cupola::bench
