#include "server/analysis/sampling.h"

#include <cmath>
#include <limits>
#include <set>

#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

// What the uniform numbers in steps of 1/1000 choose: times by token.
std::vector<int> Counts(const std::vector<float>& logits,
                        const Sampling& sampling) {
  std::vector<int> counts(logits.size());
  for (int i = 0; i < 1000; ++i) {
    const int32_t token =
        ChooseToken(logits.data(), logits.size(), sampling, (i + 0.5) / 1000);
    if (token >= 0) ++counts[token];
  }
  return counts;
}

int32_t Greedy(const std::vector<float>& logits) {
  return ChooseToken(logits.data(), logits.size(), {}, 0);
}

TEST(Sampling, GreedyTakesTheLowestOfTheLargest) {
  EXPECT_EQ(Greedy({1, 3, 3, 2}), 1);
  EXPECT_EQ(Greedy({kNan, -5, kNan, -7}), 1);
  EXPECT_EQ(Greedy({kInfinity, 3}), 0);
  EXPECT_EQ(Greedy({kNan, -kInfinity}), -1);
}

TEST(Sampling, TemperatureDividesLogits) {
  const std::vector<float> logits = {0, std::log(3.0f)};
  EXPECT_EQ(Counts(logits, {.temperature = 1}), (std::vector<int>{250, 750}));
  EXPECT_EQ(Counts(logits, {.temperature = 0.5}), (std::vector<int>{100, 900}));
}

TEST(Sampling, TopKKeepsTiesWithTheLastOne) {
  const std::vector<float> logits = {0, 1, 0, -1};
  const std::vector<int> two = Counts(logits, {.temperature = 1, .top_k = 2});
  EXPECT_GT(two[0], 0);
  EXPECT_EQ(two[0], two[2]);
  EXPECT_EQ(two[3], 0);
  EXPECT_EQ(Counts(logits, {.temperature = 1, .top_k = 1}),
            (std::vector<int>{0, 1000, 0, 0}));
  EXPECT_EQ(Counts(logits, {.temperature = 1, .top_k = 9}),
            Counts(logits, {.temperature = 1}));
}

TEST(Sampling, TopPKeepsTheFewestThatReachIt) {
  // Probabilities 0.5, 0.2, 0.2, 0.1.
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f),
                                     std::log(0.2f), std::log(0.1f)};
  EXPECT_EQ(Counts(logits, {.temperature = 1, .top_p = 0.4}),
            (std::vector<int>{0, 1000, 0, 0}));
  // The lowest of equals comes first.
  EXPECT_EQ(Counts(logits, {.temperature = 1, .top_p = 0.6}),
            (std::vector<int>{286, 714, 0, 0}));
  const std::vector<int> three =
      Counts(logits, {.temperature = 1, .top_p = 0.85});
  EXPECT_GT(three[2], 0);
  EXPECT_EQ(three[3], 0);
  // It always leaves one.
  EXPECT_EQ(Counts(logits, {.temperature = 1, .top_p = 1e-9}),
            (std::vector<int>{0, 1000, 0, 0}));
}

TEST(Sampling, NeverTakesWhatIsNoNumber) {
  const std::vector<float> logits = {kNan, 0, -kInfinity, 0};
  for (const Sampling& sampling :
       {Sampling{.temperature = 1}, Sampling{.temperature = 1, .top_k = 3},
        Sampling{.temperature = 1, .top_p = 0.99}}) {
    EXPECT_EQ(Counts(logits, sampling), (std::vector<int>{0, 500, 0, 500}));
  }
  EXPECT_EQ(Counts({kInfinity, 0}, {.temperature = 1}),
            (std::vector<int>{1000, 0}));
}

TEST(Sampling, NumbersBelongToTheirPlaceAlone) {
  const std::vector<int32_t> prompt = {1, 2};
  const uint64_t key = SamplingKey(7, prompt);
  EXPECT_EQ(key, SamplingKey(7, prompt));
  std::set<uint64_t> keys = {key, SamplingKey(8, prompt),
                             SamplingKey(7, {1, 2, 3}), SamplingKey(7, {2, 1})};
  EXPECT_EQ(keys.size(), 4u);
  std::set<double> seen;
  double sum = 0;
  for (uint64_t sample = 0; sample < 100; ++sample) {
    for (uint64_t step = 0; step < 100; ++step) {
      const double value = UniformAt(key, sample, step);
      EXPECT_GE(value, 0);
      EXPECT_LT(value, 1);
      seen.insert(value);
      sum += value;
    }
  }
  EXPECT_EQ(seen.size(), 10000u);
  // Its standard deviation is 0.0029.
  EXPECT_NEAR(sum / 10000, 0.5, 0.012);
}

}  // namespace
}  // namespace cupola::analysis
