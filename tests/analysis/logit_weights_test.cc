#include "server/analysis/logit_weights.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

using ::testing::HasSubstr;

TEST(LogitWeightsTest, NamesTheEndsAndCountsWhatIsBetween) {
  const at::Tensor logits =
      at::tensor({0.0f, 4.0f, -2.0f, 4.0f, 1.9f, 2.0f}).view({1, 6});
  LogitWeightsOptions options;
  options.top = 3;
  options.bottom = 2;
  options.bins = 3;
  const auto weights = SummarizeLogits(logits, options);
  ASSERT_TRUE(weights.ok()) << weights.status();
  // Of two fours the lower token first.
  EXPECT_TRUE(at::equal(weights->tokens[0],
                        at::tensor(std::vector<int32_t>{1, 3, 5, 2, 0})));
  EXPECT_TRUE(at::equal(weights->values[0],
                        at::tensor(std::vector<float>{4, 4, 2, -2, 0})));
  // [-2, 0), [0, 2), [2, 4].
  EXPECT_TRUE(at::equal(weights->histogram[0],
                        at::tensor(std::vector<int64_t>{1, 2, 3})));
  EXPECT_TRUE(at::equal(weights->ends[0], at::tensor({-2.0f, 4.0f})));
}

TEST(LogitWeightsTest, AgreesWithASortOfEveryRow) {
  at::manual_seed(1);
  const at::Tensor logits = at::randn({70, 300});
  const LogitWeightsOptions options;
  const auto weights = SummarizeLogits(logits, options);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto [values, order] = at::sort(logits, -1, /*descending=*/true);
  EXPECT_TRUE(at::equal(weights->tokens.narrow(1, 0, 10).to(at::kLong),
                        order.narrow(1, 0, 10)));
  EXPECT_TRUE(at::equal(weights->values.narrow(1, 10, 10),
                        values.flip(1).narrow(1, 0, 10)));
  for (int64_t i = 0; i < 70; ++i) {
    const at::Tensor bins =
        at::histc(logits[i].to(at::kDouble), 50, logits[i].min().item<double>(),
                  logits[i].max().item<double>());
    EXPECT_TRUE(at::equal(weights->histogram[i], bins.to(at::kLong))) << i;
  }
}

TEST(LogitWeightsTest, ALatentThatDoesNothingIsOneBin) {
  const auto weights = SummarizeLogits(at::zeros({1, 30}), {});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->histogram[0][0].item<int64_t>(), 30);
  EXPECT_EQ(weights->tokens[0][9].item<int32_t>(), 9);
}

TEST(LogitWeightsTest, BadOptionsAreNamed) {
  LogitWeightsOptions options;
  options.top = 31;
  EXPECT_THAT(SummarizeLogits(at::zeros({1, 30}), options).status().message(),
              HasSubstr("top is 31; accepted: 0 to 30"));
  options.top = 3;
  options.bins = 0;
  EXPECT_THAT(SummarizeLogits(at::zeros({1, 30}), options).status().message(),
              HasSubstr("bins is 0; accepted: 1 to 10000"));
}

}  // namespace
}  // namespace cupola::analysis
