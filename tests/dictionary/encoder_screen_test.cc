#include "server/dictionary/encoder_screen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "server/dictionary/selection.h"

namespace cupola::dictionary {
namespace {

using model::SplitMatrix;

constexpr int64_t kLatents = 4096, kInputs = 200, kWinners = 32;

class EncoderScreenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!SplitMatrix::Supported()) GTEST_SKIP() << "no bfloat16 tiles here";
    at::manual_seed(5);
    // Columns of many lengths, some of them 0.
    weight_ = at::randn({kLatents, kInputs}) *
              at::rand({kLatents, 1}).mul(4).sub(1).clamp_min(0);
    weight_[17].fill_(1 + 0x1p-8f - 0x1p-23f);
    weight_.narrow(0, 2000, 100).mul_(1e-24);
    bias_ = at::randn({kLatents}) * 3;
    split_ = SplitMatrix(weight_, SplitMatrix::Parts::kTwo);
    screen_ = EncoderScreen(split_, bias_, kWinners);
  }

  // Rows of several kinds: plain ones, one input far larger than the others,
  // very small and very large ones, zero, and values whose rounding to bfloat16
  // errs most, all to one side.
  static at::Tensor Inputs() {
    at::Tensor x = at::randn({40, kInputs});
    x.narrow(0, 33, 3).fill_(1 + 0x1p-8f - 0x1p-23f);
    x.narrow(0, 36, 4).mul_(1e-24);
    x.narrow(0, 8, 8).select(1, 3).mul_(3000);
    x.narrow(0, 16, 8).mul_(1e-12);
    x.narrow(0, 24, 8).mul_(1e12);
    x[32].zero_();
    return x;
  }

  at::Tensor weight_, bias_;
  SplitMatrix split_;
  EncoderScreen screen_;
};

TEST_F(EncoderScreenTest, FirstPartsLieWithinTheBound) {
  ASSERT_TRUE(screen_.defined());
  const at::Tensor x = Inputs();
  const at::Tensor exact = at::linear(
      x.to(at::kDouble), weight_.to(at::kDouble), bias_.to(at::kDouble));
  const at::Tensor first = split_.MultiplyFirstParts(x, bias_).to(at::kDouble);
  const at::Tensor lengths =
      at::from_blob(const_cast<float*>(screen_.lengths()), {kLatents},
                    at::kFloat)
          .to(at::kDouble);
  double tightest = std::numeric_limits<double>::infinity();
  for (int64_t row = 0; row < x.size(0); ++row) {
    const float radius = screen_.Radius(x[row].const_data_ptr<float>());
    const at::Tensor error = (first[row] - exact[row]).abs();
    const at::Tensor bound = lengths * radius + screen_.slack();
    EXPECT_TRUE((error <= bound).all().item<bool>()) << row;
    tightest = std::min(
        tightest, ((bound + 1e-30) / (error + 1e-30)).min().item<double>());
  }
  // A bound that is far from any error would screen nothing.
  EXPECT_LT(tightest, 4);
}

// Without biases, so that what is smallest decides.
TEST_F(EncoderScreenTest, SquaresDoNotUnderflow) {
  for (double factor : {1e-20, 1e-24, 1e-28}) {
    for (bool small_weight : {false, true}) {
      const at::Tensor weight =
          at::randn({kLatents, kInputs}) * (small_weight ? factor : 1.0);
      const at::Tensor x =
          at::randn({1, kInputs}) * (small_weight ? 1.0 : factor);
      const SplitMatrix split(weight, SplitMatrix::Parts::kTwo);
      const EncoderScreen screen(split, {}, kWinners);
      ASSERT_TRUE(screen.defined());
      const float radius = screen.Radius(x.const_data_ptr<float>());
      const at::Tensor rest = x - x.to(at::kBFloat16).to(at::kFloat);
      EXPECT_GT(radius,
                at::linalg_vector_norm(rest.to(at::kDouble)).item<double>());
      const at::Tensor length =
          at::linalg_vector_norm(weight[7].to(at::kDouble));
      EXPECT_NEAR(screen.lengths()[7] / length.item<double>(), 1, 1e-6);
    }
  }
}

// Winners by float32 products of all latents, ties to the lowest index, must be
// among the few that are kept.
TEST_F(EncoderScreenTest, KeepsEveryWinner) {
  const at::Tensor x = Inputs();
  const at::Tensor first = split_.MultiplyFirstParts(x, bias_);
  std::vector<int32_t> all(kLatents);
  for (int32_t i = 0; i < kLatents; ++i) all[i] = i;
  std::vector<float> exact(kLatents);
  SelectionScratch scratch;
  size_t kept = 0;
  for (int64_t row = 0; row < x.size(0); ++row) {
    const float* input = x[row].const_data_ptr<float>();
    split_.Dots(input, all, exact.data());
    for (int64_t i = 0; i < kLatents; ++i) {
      exact[i] += bias_.const_data_ptr<float>()[i];
    }
    for (float floor : {0.0f, 2.5f}) {
      std::vector<int32_t> winners, near;
      SelectTopK(exact.data(), kLatents, kWinners, floor, &scratch, &winners);
      at::Tensor values = first[row].clone();
      SelectNear(screen_.lengths(), screen_.Radius(input), screen_.slack(),
                 kLatents, kWinners, floor, values.data_ptr<float>(), &scratch,
                 &near);
      EXPECT_TRUE(std::includes(near.begin(), near.end(), winners.begin(),
                                winners.end()))
          << row;
      kept += near.size();
    }
  }
  EXPECT_LT(kept, 2 * 40 * 3 * kWinners);
}

TEST_F(EncoderScreenTest, NothingIsLostAmongEqualValues) {
  const SplitMatrix same(at::ones({kLatents, kInputs}),
                         SplitMatrix::Parts::kTwo);
  const EncoderScreen screen(same, {}, kWinners);
  const at::Tensor x = at::ones({1, kInputs}) / 3;
  at::Tensor values = same.MultiplyFirstParts(x, {});
  SelectionScratch scratch;
  std::vector<int32_t> near;
  SelectNear(screen.lengths(), screen.Radius(x.const_data_ptr<float>()),
             screen.slack(), kLatents, kWinners, 0, values.data_ptr<float>(),
             &scratch, &near);
  EXPECT_EQ(near.size(), kLatents);
}

TEST_F(EncoderScreenTest, RefusesWhatMightOverflow) {
  at::Tensor x = at::full({1, kInputs}, 3e35f);
  EXPECT_FALSE(std::isfinite(screen_.Radius(x.const_data_ptr<float>())));
  x[0][5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(std::isfinite(screen_.Radius(x.const_data_ptr<float>())));
  EXPECT_FALSE(
      EncoderScreen(SplitMatrix(weight_ * 1e32, SplitMatrix::Parts::kTwo),
                    bias_, kWinners)
          .defined());
  EXPECT_FALSE(EncoderScreen(split_, bias_, kLatents / 32).defined());
}

}  // namespace
}  // namespace cupola::dictionary
