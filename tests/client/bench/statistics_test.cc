#include "client/bench/statistics.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::bench {
namespace {

TEST(PercentileTest, NearestRank) {
  // The example of the definition: five values.
  const std::vector<double> five = {15, 20, 35, 40, 50};
  EXPECT_EQ(Percentile(five, 0), 15);
  EXPECT_EQ(Percentile(five, 5), 15);
  EXPECT_EQ(Percentile(five, 30), 20);
  EXPECT_EQ(Percentile(five, 40), 20);
  EXPECT_EQ(Percentile(five, 50), 35);
  EXPECT_EQ(Percentile(five, 100), 50);
  EXPECT_EQ(Percentile({7}, 99), 7);
}

TEST(PercentileTest, OfAThousand) {
  std::vector<double> values;
  for (int i = 1; i <= 1000; ++i) values.push_back(i);
  EXPECT_EQ(Percentile(values, 50), 500);
  EXPECT_EQ(Percentile(values, 95), 950);
  EXPECT_EQ(Percentile(values, 99), 990);
}

TEST(SummarizeTest, SortsFirst) {
  const LatencySummary summary = Summarize({0.3, 0.1, 0.2, 0.6});
  EXPECT_EQ(summary.count, 4);
  EXPECT_DOUBLE_EQ(summary.mean, 0.3);
  EXPECT_EQ(summary.p50, 0.2);
  EXPECT_EQ(summary.p99, 0.6);
  EXPECT_EQ(summary.max, 0.6);
}

TEST(SummarizeTest, OfNothing) {
  const LatencySummary summary = Summarize({});
  EXPECT_EQ(summary.count, 0);
  EXPECT_EQ(summary.p99, 0);
}

TEST(StableTest, LooksAtTheLastThreeWindows) {
  EXPECT_FALSE(IsStable({}));
  EXPECT_FALSE(IsStable({{100, 1}, {100, 1}}));
  EXPECT_TRUE(IsStable({{100, 1}, {100, 1}, {100, 1}}));
  // The warm-up does not count.
  EXPECT_TRUE(IsStable({{1, 90}, {100, 1}, {105, 1}, {109, 1.05}}));
  // Exactly 10 % is within; more is not.
  EXPECT_TRUE(IsStable({{100, 1}, {110, 1}, {105, 1}}));
  EXPECT_FALSE(IsStable({{100, 1}, {111, 1}, {105, 1}}));
  EXPECT_FALSE(IsStable({{100, 1}, {100, 1.2}, {100, 1}}));
}

TEST(StableTest, NeverWithoutAnswers) {
  EXPECT_FALSE(IsStable({{0, 0}, {0, 0}, {0, 0}}));
  EXPECT_FALSE(IsStable({{100, 1}, {0, 0}, {100, 1}}));
}

}  // namespace
}  // namespace cupola::bench
