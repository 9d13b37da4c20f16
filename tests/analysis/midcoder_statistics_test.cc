#include "server/analysis/midcoder_statistics.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/analysis/midcoder_moments.h"
#include "tests/analysis/state_copy.h"

namespace cupola::analysis {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kF = 5, kN = 7, kD = 4, kTokens = 120;
constexpr MidcoderSizes kSizes{kF, kN, kD};

MidcoderValues RandomValues() {
  at::manual_seed(11);
  MidcoderValues values;
  values.acts = at::randn({kTokens, kF}).clamp_min(0);
  values.acts.select(1, 3).zero_();  // never active
  values.mid = at::randn({kTokens, kN});
  values.pre_relu = at::randn({kTokens, kN}) + 0.3;
  values.mlp_out = at::randn({kTokens, kD});
  return values;
}

MidcoderValues Some(const MidcoderValues& values, int64_t first,
                    int64_t count) {
  return {values.acts.narrow(0, first, count),
          values.mid.narrow(0, first, count),
          values.pre_relu.narrow(0, first, count),
          values.mlp_out.narrow(0, first, count)};
}

MidcoderStatistics Of(const MidcoderValues& values) {
  MidcoderStatistics statistics(kSizes);
  EXPECT_TRUE(statistics.Add(Some(values, 0, 50)).ok());
  EXPECT_TRUE(statistics.Add(Some(values, 50, kTokens - 50)).ok());
  return statistics;
}

void ExpectSum(const MidcoderStatistics& statistics, const char* name,
               const at::Tensor& expected) {
  const auto sum = statistics.Sum(name);
  ASSERT_TRUE(sum.ok()) << sum.status();
  ASSERT_EQ(sum->sizes(), expected.sizes()) << name;
  EXPECT_TRUE(at::allclose(*sum, expected, 1e-5, 1e-5)) << name;
}

// Token by token, with outer products.
TEST(MidcoderStatisticsTest, AreTheSumsOfTheirDefinitions) {
  const MidcoderValues values = RandomValues();
  const MidcoderStatistics statistics = Of(values);
  const auto zeros = [](std::vector<int64_t> shape) {
    return at::zeros(shape, at::kDouble);
  };
  at::Tensor a_g = zeros({kF, kN}), a2_g = zeros({kF, kN}),
             on_g = zeros({kF, kN}), on_pre = zeros({kF, kN}),
             a_a = zeros({kF, kF}), on_on = zeros({kF, kF}),
             on_out = zeros({kF, kD}), pre_pre = zeros({kN, kN}),
             out_out = zeros({kD, kD}), gates = zeros({kN}),
             gate_mid = zeros({kN}), cube = zeros({kN});
  for (int64_t t = 0; t < kTokens; ++t) {
    const at::Tensor a = values.acts[t].to(at::kDouble);
    const at::Tensor mid = values.mid[t].to(at::kDouble);
    const at::Tensor pre = values.pre_relu[t].to(at::kDouble);
    const at::Tensor out = values.mlp_out[t].to(at::kDouble);
    const at::Tensor gate = (mid > 0).to(at::kDouble);
    const at::Tensor on = (a > 0).to(at::kDouble);
    a_g += at::outer(a, gate);
    a2_g += at::outer(a * a, gate);
    on_g += at::outer(on, gate);
    on_pre += at::outer(on, pre);
    a_a += at::outer(a, a);
    on_on += at::outer(on, on);
    on_out += at::outer(on, out);
    pre_pre += at::outer(pre, pre);
    out_out += at::outer(out, out);
    gates += gate;
    gate_mid += gate * mid;
    cube += pre * pre * pre;
  }
  ExpectSum(statistics, "act_gate_sum", a_g);
  ExpectSum(statistics, "act_sq_gate_sum", a2_g);
  ExpectSum(statistics, "gate_act_counts", on_g);
  ExpectSum(statistics, "pre_relu_sum_no_act", on_pre);
  ExpectSum(statistics, "act_cov_sum", a_a);
  ExpectSum(statistics, "act_cov_counts", on_on);
  ExpectSum(statistics, "mlp_out_sum_no_act", on_out);
  ExpectSum(statistics, "pre_relu_cov_sum", pre_pre);
  ExpectSum(statistics, "mlp_out_cov_sum", out_out);
  ExpectSum(statistics, "gate_counts", gates);
  ExpectSum(statistics, "gate_mid_sum", gate_mid);
  ExpectSum(statistics, "pre_relu_cube_sum", cube);
  const auto sum = [](const at::Tensor& of) {
    return of.to(at::kDouble).sum(0);
  };
  ExpectSum(statistics, "act_sum", sum(values.acts));
  ExpectSum(statistics, "act_sq_sum", sum(values.acts.square()));
  ExpectSum(statistics, "act_counts", sum(values.acts > 0));
  ExpectSum(statistics, "mid_sum", sum(values.mid));
  ExpectSum(statistics, "pre_relu_sum", sum(values.pre_relu));
  ExpectSum(statistics, "mlp_out_sum", sum(values.mlp_out));
  ExpectSum(statistics, "counts", at::scalar_tensor(kTokens, at::kDouble));
  EXPECT_EQ(MidcoderStatistics::Names().size(), 19u);
}

TEST(MidcoderStatisticsTest, ResumedAndMergedEqualStraight) {
  const MidcoderValues values = RandomValues();
  const MidcoderStatistics straight = Of(values);
  MidcoderStatistics before(kSizes), resumed(kSizes), rest(kSizes);
  ASSERT_TRUE(before.Add(Some(values, 0, 50)).ok());
  CopyThroughState(before, &resumed);
  ASSERT_TRUE(resumed.Add(Some(values, 50, kTokens - 50)).ok());
  EXPECT_EQ(StateBytes(resumed), StateBytes(straight));
  ASSERT_TRUE(rest.Add(Some(values, 50, kTokens - 50)).ok());
  ASSERT_TRUE(before.Merge(rest).ok());
  for (const auto name : MidcoderStatistics::Names()) {
    EXPECT_TRUE(
        at::allclose(*before.Sum(name), *straight.Sum(name), 1e-12, 1e-12));
  }
  MidcoderStatistics other({kF, kN, kD + 1});
  EXPECT_EQ(other.Merge(before).code(), absl::StatusCode::kInvalidArgument);
  const std::string body = StateBody(straight);
  EXPECT_EQ(RestoreBytes(body, &other).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(RestoreBytes(body.substr(0, 99), &rest).code(),
            absl::StatusCode::kDataLoss);
}

TEST(MidcoderStatisticsTest, RefusesOtherShapesAndLeavesTheSums) {
  MidcoderValues values = RandomValues();
  values.mlp_out = values.mlp_out.narrow(1, 0, 3);
  MidcoderStatistics statistics(kSizes);
  EXPECT_THAT(
      statistics.Add(values).message(),
      HasSubstr("mlp_out is Float [120, 3]; accepted: float32 [120, 4]"));
  EXPECT_EQ(statistics.Sum("counts")->item<double>(), 0);
  EXPECT_THAT(statistics.Sum("sum").status().message(),
              HasSubstr("accepted: act_gate_sum, "));
}

TEST(MidcoderMomentsTest, PredictsTheDecoderOfAGateThatFollowsTheFeature) {
  const MidcoderValues values = RandomValues();
  const MidcoderStatistics statistics = Of(values);
  const at::Tensor w_mid = at::randn({kF, kN}), w_out = at::randn({kN, kD}),
                   w_dec = at::randn({kF, kD});
  const auto decoders = PredictDecoders(statistics, w_mid, w_out, w_dec);
  ASSERT_TRUE(decoders.ok()) << decoders.status();
  for (int64_t f = 0; f < kF; ++f) {
    const at::Tensor on = values.acts.select(1, f) > 0;
    const double times = on.sum().item<double>();
    at::Tensor row = at::zeros({kD}, at::kDouble);
    for (int64_t n = 0; n < kN; ++n) {
      const double mean =
          times == 0
              ? 0
              : (values.acts.select(1, f) * (values.mid.select(1, n) > 0))
                        .sum()
                        .item<double>() /
                    times;
      row += mean * w_mid[f][n].item<double>() * w_out[n].to(at::kDouble);
    }
    EXPECT_TRUE(at::allclose(decoders->rows[f], row, 1e-5, 1e-6)) << f;
    const double norms =
        (row.norm() * w_dec[f].to(at::kDouble).norm()).item<double>();
    const double cosine =
        norms == 0 ? 0
                   : row.dot(w_dec[f].to(at::kDouble)).item<double>() / norms;
    EXPECT_NEAR(decoders->cosines[f].item<double>(), cosine, 1e-6);
  }
  EXPECT_THAT(
      PredictDecoders(statistics, w_mid, w_dec, w_dec).status().message(),
      HasSubstr("W_out is [5, 4]; accepted: [7, 4]"));
}

TEST(MidcoderMomentsTest, CorrelationsArePublishedAndSymmetric) {
  const MidcoderValues values = RandomValues();
  const MidcoderStatistics statistics = Of(values);
  const auto upstream =
      PairCorrelations(statistics, PairNormalization::kUpstream);
  const auto symmetric =
      PairCorrelations(statistics, PairNormalization::kSymmetric);
  const at::Tensor on = (values.acts > 0).to(at::kDouble);
  for (int64_t i = 0; i < kF; ++i) {
    for (int64_t j = 0; j < kF; ++j) {
      const double p = on.select(1, i).mean().item<double>();
      const double q = on.select(1, j).mean().item<double>();
      const double both =
          (on.select(1, i) * on.select(1, j)).mean().item<double>();
      EXPECT_NEAR(PairProbabilities(statistics)[i][j].item<double>(), both,
                  1e-12);
      const bool live = p > 0 && q > 0;
      EXPECT_NEAR(upstream[i][j].item<double>(),
                  live ? (both - p * q) / std::sqrt(p * (1 - p) * q) : 0, 1e-9);
      EXPECT_NEAR(
          symmetric[i][j].item<double>(),
          live ? (both - p * q) / std::sqrt(p * (1 - p) * q * (1 - q)) : 0,
          1e-9);
    }
  }
}

TEST(MidcoderMomentsTest, NoiseIsWhatTheFeatureLeaves) {
  const MidcoderValues values = RandomValues();
  const MidcoderStatistics statistics = Of(values);
  const at::Tensor w_mid = at::randn({kF, kN}), b_mid = at::randn({kN});
  const auto noise = EstimateNoise(statistics, w_mid, b_mid);
  ASSERT_TRUE(noise.ok()) << noise.status();
  const at::Tensor pre = values.pre_relu.to(at::kDouble);
  EXPECT_TRUE(at::allclose(noise->mid_cov.diagonal(),
                           pre.var(0, /*unbiased=*/false), 1e-5, 1e-6));
  const at::Tensor a = values.acts.select(1, 1).to(at::kDouble);
  const at::Tensor active = a.masked_select(a > 0);
  const at::Tensor w = w_mid[1].to(at::kDouble);
  EXPECT_TRUE(at::allclose(
      noise->mean[1], b_mid.to(at::kDouble) + pre.mean(0) - active.mean() * w,
      1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(
      noise->variance[1],
      pre.var(0, false) - active.var(/*unbiased=*/false) * w * w, 1e-5, 1e-6));
}

TEST(MidcoderMomentsTest, ASpectrumRebuildsItsMatrix) {
  at::manual_seed(12);
  const at::Tensor rows = at::randn({6, 3}, at::kDouble);
  const at::Tensor gram = rows.mm(rows.t());
  const auto spectrum = SpectrumOf(gram, 6);
  ASSERT_TRUE(spectrum.ok()) << spectrum.status();
  EXPECT_TRUE(at::allclose(spectrum->vectors.t()
                               .mm(at::diag(spectrum->values))
                               .mm(spectrum->vectors),
                           gram, 1e-9, 1e-9));
  for (int i = 0; i + 1 < 6; ++i) {
    EXPECT_GE(spectrum->values[i].item<double>(),
              spectrum->values[i + 1].item<double>());
  }
  EXPECT_GT(spectrum->values[2].item<double>(), 0.01);
  EXPECT_NEAR(spectrum->values[3].item<double>(), 0, 1e-9);
  EXPECT_THAT(SpectrumOf(gram, 7).status().message(),
              HasSubstr("top is 7; accepted: 0 to 6"));
  EXPECT_FALSE(SpectrumOf(rows, 1).ok());
  EXPECT_FALSE(SpectrumOf(gram / 0.0, 1).ok());
}

}  // namespace
}  // namespace cupola::analysis
