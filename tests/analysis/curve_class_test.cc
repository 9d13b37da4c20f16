#include "server/analysis/curve_class.h"

#include <cmath>

#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

at::Tensor Row(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble).unsqueeze(0);
}

int KindOf(const std::vector<double>& y, bool published = false) {
  const at::Tensor t =
      at::arange(static_cast<int64_t>(y.size()), at::kDouble).unsqueeze(0);
  return ClassifyCurves(t, Row(y), 1e-2, published).kind[0].item<int>();
}

TEST(ClassifyCurves, TellsTheThreeKindsApart) {
  EXPECT_EQ(KindOf({1, 2, 3, 4, 5}), 0);
  EXPECT_EQ(KindOf({0, 0, 3, 4, 5}), 1);
  EXPECT_EQ(KindOf({1, 2, 4, 8, 16}), 2);
  EXPECT_EQ(KindOf({0, 0, 4, 8, 16}), 2);
  EXPECT_EQ(KindOf({5, 4, 3, 0, 0}), 1);
  // The zero region's middle is not looked at.
  EXPECT_EQ(KindOf({0, 7, 0, 4, 5}), 1);
  // Both of its sides belong to one line.
  EXPECT_EQ(KindOf({1, 0, 3, 4, 5}), 1);
  EXPECT_EQ(KindOf({2, 0, 3, 4, 5}), 2);
}

TEST(ClassifyCurves, CountsLinesAsPublishedOnRequest) {
  EXPECT_EQ(KindOf({1, 2, 3, 4, 5}, /*published=*/true), 1);
  EXPECT_EQ(KindOf({1, 2, 4, 8, 16}, /*published=*/true), 2);
}

TEST(ClassifyCurves, ResidualsBelowTheToleranceFit) {
  EXPECT_EQ(KindOf({1, 2.009, 3, 4, 5}), 0);
  EXPECT_EQ(KindOf({1, 2.05, 3, 4, 5}), 2);
}

TEST(ClassifyCurves, FitsTheLineOutsideTheZeroRegion) {
  const at::Tensor t = Row({0, 0.5, 1, 1.5, 2});
  const CurveFits fits =
      ClassifyCurves(t, Row({0, 0, 1.5, 2, 2.5}), 1e-2, false);
  EXPECT_NEAR(fits.slope[0].item<double>(), 1, 1e-12);
  EXPECT_NEAR(fits.intercept[0].item<double>(), 0.5, 1e-12);
  EXPECT_EQ(fits.zero_first[0].item<double>(), 0);
  EXPECT_EQ(fits.zero_last[0].item<double>(), 0.5);
  const CurveFits none = ClassifyCurves(t, t + 1, 1e-2, false);
  EXPECT_TRUE(std::isnan(none.zero_first[0].item<double>()));
  EXPECT_TRUE(std::isnan(none.zero_last[0].item<double>()));
}

TEST(ClassifyCurves, TakesTheShortestLineWhereTooFewPointsAreLeft) {
  const at::Tensor t = Row({0, 1, 2});
  const CurveFits one = ClassifyCurves(t, Row({0, 0, 5}), 1e-2, false);
  EXPECT_EQ(one.kind[0].item<int>(), 1);
  EXPECT_NEAR(one.slope[0].item<double>(), 2, 1e-12);
  EXPECT_NEAR(one.intercept[0].item<double>(), 1, 1e-12);
  const CurveFits silent = ClassifyCurves(t, Row({0, 0, 0}), 1e-2, false);
  EXPECT_EQ(silent.kind[0].item<int>(), 1);
  EXPECT_EQ(silent.slope[0].item<double>(), 0);
}

}  // namespace
}  // namespace cupola::analysis
