#include "server/analysis/line_distance.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

TEST(LineDistanceTest, IsTheDistanceToTheSegment) {
  const std::vector<float> a = {0, 0, 0}, b = {2, 0, 0};
  const auto from = [&](std::vector<float> e) {
    return LineDistance(e.data(), a.data(), b.data(), 3);
  };
  EXPECT_FLOAT_EQ(from({1, 3, 4}), 5);
  EXPECT_FLOAT_EQ(from({5, 0, 4}), 5);   // behind b
  EXPECT_FLOAT_EQ(from({-3, 4, 0}), 5);  // before a
  EXPECT_FLOAT_EQ(LineDistance(b.data(), a.data(), a.data(), 3), 2);
  EXPECT_FLOAT_EQ(Length(b.data(), 3), 2);
}

TEST(SplitCurveTest, SplitsWhereItBends) {
  std::vector<float> rows;
  for (int t = 0; t < 33; ++t) {  // straight, then a corner at 16
    rows.push_back(1 + 0.1f * static_cast<float>(std::min(t, 16)));
    rows.push_back(0.1f * static_cast<float>(std::max(t - 16, 0)));
  }
  EXPECT_EQ(SplitCurve(rows.data(), 33, 2, 0.01f, 2),
            (std::vector<int64_t>{0, 16, 32}));
  EXPECT_EQ(SplitCurve(rows.data(), 33, 2, 10, 2),
            (std::vector<int64_t>{0, 32}));
  EXPECT_EQ(SplitCurve(rows.data(), 1, 2, 0.01f, 2), (std::vector<int64_t>{0}));
  EXPECT_EQ(SplitCurve(rows.data(), 5, 2, 1e-5f, 1),
            (std::vector<int64_t>{0, 4}));
}

}  // namespace
}  // namespace cupola::analysis
