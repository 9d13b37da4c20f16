#include "server/analysis/feature_matching.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::NanSensitiveDoubleEq;

const double kNan = std::numeric_limits<double>::quiet_NaN();

absl::StatusOr<Matching> MatchFeatures(const at::Tensor& cosines,
                                       const std::vector<bool>& dead_a,
                                       const std::vector<bool>& dead_b,
                                       DeadPolicy policy) {
  auto assigned = AssignFeatures(cosines, {});
  if (!assigned.ok()) return assigned.status();
  return MatchingOf(*std::move(assigned), dead_a, dead_b, policy);
}

// A's 0 is B's 2, A's 1 is B's 0; A's 2 is dead, as is B's 1.
at::Tensor ThreeCosines() {
  return at::tensor({0.1, 0.0, 0.9, 0.75, 0.0, 0.8, 0.0, 0.0, 0.0})
      .view({3, 3});
}

TEST(FeatureMatchingTest, UpstreamTakesTheDeadOfBByTheirIndex) {
  const auto matching =
      MatchFeatures(ThreeCosines(), {false, false, true}, {false, true, false},
                    DeadPolicy::kUpstream);
  ASSERT_TRUE(matching.ok()) << matching.status();
  EXPECT_THAT(matching->matched, ElementsAre(2, 0, 1));
  // A's 1 is well matched, but loses its distance to B's dead 1.
  EXPECT_THAT(matching->distances, ElementsAre(DoubleNear(0.1, 1e-12), -1, -1));
  EXPECT_THAT(MatchedFractions(*matching, {0.05, 0.5}),
              ElementsAre(DoubleEq(2.0 / 3), DoubleEq(1)));
}

TEST(FeatureMatchingTest, CorrectTakesThemThroughTheAssignment) {
  const auto matching =
      MatchFeatures(ThreeCosines(), {false, false, true}, {false, true, false},
                    DeadPolicy::kCorrect);
  ASSERT_TRUE(matching.ok()) << matching.status();
  EXPECT_THAT(matching->matched, ElementsAre(2, 0, 1));
  EXPECT_THAT(matching->distances,
              ElementsAre(DoubleNear(0.1, 1e-12), DoubleNear(0.25, 1e-12),
                          NanSensitiveDoubleEq(kNan)));
  EXPECT_EQ(matching->counted, 2);
  EXPECT_THAT(MatchedFractions(*matching, {0.1 - 1e-9, 0.2, 0.5}),
              ElementsAre(0, 0.5, 1));
}

TEST(FeatureMatchingTest, MoreFeaturesThanPartnersLeavesSomeAlone) {
  const at::Tensor cosines = at::tensor({0.2, 0.9, 0.5}).view({3, 1});
  const auto matching = MatchFeatures(cosines, {false, false, false}, {false},
                                      DeadPolicy::kCorrect);
  ASSERT_TRUE(matching.ok()) << matching.status();
  EXPECT_THAT(matching->matched, ElementsAre(-1, 0, -1));
  EXPECT_TRUE(std::isnan(matching->distances[0]));
  EXPECT_EQ(matching->counted, 3);
  EXPECT_THAT(MatchFeatures(cosines, {false, false, false}, {false},
                            DeadPolicy::kUpstream)
                  .status()
                  .message(),
              HasSubstr("not 3 and 1; accepted: correct"));
  EXPECT_THAT(
      MatchFeatures(cosines, {false}, {false}, DeadPolicy::kCorrect)
          .status()
          .message(),
      HasSubstr("told of 3 assigned, 3 cosines and 1 dead latents; accepted: "
                "of as many"));
}

TEST(FeatureMatchingTest, FeaturesAppearWhereTheyStay) {
  const auto at = [](std::vector<double> distances) {
    Matching matching;
    matching.distances = std::move(distances);
    return matching;
  };
  const std::vector<Matching> matchings = {at({0.9, 0.9, 0.1, 0.9, kNan}),
                                           at({0.9, 0.2, 0.1, 0.2, 0.2}),
                                           at({0.2, 0.2, 0.1, 0.9, 0.2})};
  EXPECT_THAT(AppearingFeatures(matchings, 0, 0.5), ElementsAre(2));
  EXPECT_THAT(AppearingFeatures(matchings, 1, 0.5), ElementsAre(1, 4));
  EXPECT_THAT(AppearingFeatures(matchings, 2, 0.5), ElementsAre(0));
  EXPECT_THAT(AppearingFeatures({}, 0, 0.5), IsEmpty());
}

TEST(FeatureMatchingTest, DecodersOfPairsAreCompared) {
  at::manual_seed(1);
  const at::Tensor a = at::randn({3, 4});
  const at::Tensor b = at::stack({a[2] * 3, at::zeros({4}), -a[0], a[1]});
  const auto cosines = DecoderCosines(a, b, {2, 1, 0});
  ASSERT_TRUE(cosines.ok()) << cosines.status();
  EXPECT_NEAR((*cosines)[0].item<double>(), -1, 1e-6);
  EXPECT_TRUE(std::isnan((*cosines)[1].item<double>()));
  EXPECT_NEAR((*cosines)[2].item<double>(), 1, 1e-6);
  const auto without = DecoderCosines(a, b, {3, -1, 0});
  ASSERT_TRUE(without.ok());
  EXPECT_TRUE(std::isnan((*without)[1].item<double>()));
  EXPECT_THAT(DecoderCosines(a, b, {3, 4, 0}).status().message(),
              HasSubstr("matched[1] is 4; accepted: -1 (none) or 0 to 3"));
  EXPECT_FALSE(DecoderCosines(a, b, {1, 2}).ok());
}

TEST(FeatureMatchingTest, ADictionaryIsPutIntoTheOthersOrder) {
  at::manual_seed(2);
  const at::Tensor w_dec = at::randn({4, 5}), w_enc = at::randn({5, 4});
  const std::vector<int64_t> matched = {2, 0, 3, 1};
  const auto rows = InOrderOf(matched, w_dec, 0);
  const auto columns = InOrderOf(matched, w_enc, 1);
  ASSERT_TRUE(rows.ok() && columns.ok());
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(at::equal((*rows)[i], w_dec[matched[i]]));
    EXPECT_TRUE(at::equal(columns->select(1, i), w_enc.select(1, matched[i])));
  }
  EXPECT_THAT(InOrderOf({0, -1}, w_dec, 0).status().message(),
              HasSubstr("matched[1] is -1; accepted: 0 to 3"));
  EXPECT_FALSE(InOrderOf(matched, w_dec, 2).ok());
}

}  // namespace
}  // namespace cupola::analysis
