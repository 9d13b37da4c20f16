#include "server/model/split_matrix.h"

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"

namespace cupola::model {
namespace {

using Parts = SplitMatrix::Parts;

class SplitMatrixTest
    : public testing::TestWithParam<std::tuple<int64_t, int64_t, int64_t>> {
 protected:
  void SetUp() override {
    if (!SplitMatrix::Supported()) GTEST_SKIP() << "no bfloat16 tiles here";
    at::manual_seed(3);
  }
};

// Beside the parts left out (of sum |x w|: 3 * 2^-16 of two parts, 2^-23 of
// three), float32 sums of n values lose at most n * 2^-24 of the same sum; sums
// in blocks far less, here a quarter is allowed.
TEST_P(SplitMatrixTest, StaysWithinItsBound) {
  const auto [rows, in, out] = GetParam();
  const at::Tensor weight = at::randn({out, in}), x = at::randn({rows, in});
  const at::Tensor bias = at::randn({out});
  const at::Tensor sizes =
      at::linear(x.abs().to(at::kDouble), weight.abs().to(at::kDouble));
  for (Parts parts : {Parts::kTwo, Parts::kThree}) {
    const SplitMatrix matrix(weight, parts);
    const double left_out = parts == Parts::kTwo ? 3 * 0x1p-16 : 0x1p-23;
    const at::Tensor bound =
        (left_out + static_cast<double>(in) * 0x1p-26) * sizes + 1e-6;
    for (const at::Tensor& added : {bias, at::Tensor()}) {
      at::Tensor expected =
          at::linear(x.to(at::kDouble), weight.to(at::kDouble));
      if (added.defined()) expected = expected + added.to(at::kDouble);
      const at::Tensor y = matrix.Multiply(x, added);
      ASSERT_EQ(y.sizes(), expected.sizes());
      const at::Tensor error = (y.to(at::kDouble) - expected).abs();
      EXPECT_TRUE((error <= bound).all().item<bool>())
          << static_cast<int>(parts) << " parts, largest error "
          << error.max().item<double>();
    }
  }
}

// With random signs far below the bound: 4.4e-6 for two parts (sqrt(3) times
// the 2.5e-6 of a rounded rest), and for three what float32 sums lose, which
// grows with the square root of their length. A forgotten second part would
// make 1e-3 of it, a forgotten third 4e-6.
TEST_P(SplitMatrixTest, ErrorsAreOfTheExpectedSize) {
  const auto [rows, in, out] = GetParam();
  const at::Tensor weight = at::randn({out, in}), x = at::randn({rows, in});
  const at::Tensor expected =
      at::linear(x.to(at::kDouble), weight.to(at::kDouble));
  const auto relative_error = [&](Parts parts) {
    const at::Tensor error =
        SplitMatrix(weight, parts).Multiply(x, {}).to(at::kDouble) - expected;
    return (error.square().mean().sqrt() / expected.square().mean().sqrt())
        .item<double>();
  };
  EXPECT_LT(relative_error(Parts::kTwo), 6e-6);
  EXPECT_LT(relative_error(Parts::kThree), 1.5e-6);
}

TEST_P(SplitMatrixTest, GivesTheWeightBack) {
  const auto [rows, in, out] = GetParam();
  const at::Tensor weight = at::randn({out, in});
  const SplitMatrix matrix(weight, Parts::kThree);
  EXPECT_TRUE(at::equal(matrix.Weight(), weight));
  EXPECT_GE(matrix.bytes(), static_cast<int64_t>(weight.nbytes()));
}

TEST_P(SplitMatrixTest, FirstPartsAndDots) {
  const auto [rows, in, out] = GetParam();
  const at::Tensor weight = at::randn({out, in}), x = at::randn({rows, in});
  const at::Tensor bias = at::randn({out});
  const SplitMatrix matrix(weight, Parts::kTwo);
  // Half to even as the processor does, and half away from zero.
  const at::Tensor x1 = x.to(at::kBFloat16).to(at::kDouble);
  const at::Tensor w1 = weight.view(at::kInt)
                            .add(0x8000)
                            .bitwise_and(static_cast<int32_t>(0xffff0000))
                            .view(at::kFloat)
                            .to(at::kDouble);
  const at::Tensor first = at::linear(x1, w1);
  const at::Tensor sizes = at::linear(x1.abs(), w1.abs());
  const at::Tensor bound = sizes * (static_cast<double>(in) * 0x1p-24) + 1e-5;
  for (const at::Tensor& added : {bias, at::Tensor()}) {
    const at::Tensor expected =
        added.defined() ? first + added.to(at::kDouble) : first;
    const at::Tensor y = matrix.MultiplyFirstParts(x, added).to(at::kDouble);
    EXPECT_TRUE(((y - expected).abs() <= bound).all().item<bool>());
  }
  std::vector<int32_t> outputs;
  for (int64_t o = out - 1; o >= 0; o -= 3) outputs.push_back(o);
  std::vector<float> dots(outputs.size());
  matrix.Dots(x[rows - 1].const_data_ptr<float>(), outputs, dots.data());
  for (size_t i = 0; i < dots.size(); ++i) {
    const double dot =
        at::dot(x[rows - 1].to(at::kDouble), weight[outputs[i]].to(at::kDouble))
            .item<double>();
    EXPECT_NEAR(dots[i], dot,
                sizes[rows - 1][outputs[i]].item<double>() * 0x1p-20 + 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, SplitMatrixTest,
    testing::Values(std::tuple{1, 40, 300}, std::tuple{1, 512, 130},
                    std::tuple{4, 70, 100}, std::tuple{15, 31, 33},
                    std::tuple{16, 32, 32}, std::tuple{17, 33, 31},
                    std::tuple{33, 100, 257}, std::tuple{200, 96, 160},
                    // Rows beyond a cacheful, an answer that is streamed.
                    std::tuple{700, 2048, 64}, std::tuple{300, 64, 4096}));

TEST_F(SplitMatrixTest, NoRowsAreNoProduct) {
  EXPECT_EQ(SplitMatrix(at::ones({5, 3}), Parts::kTwo)
                .Multiply(at::empty({0, 3}), {})
                .sizes(),
            at::IntArrayRef({0, 5}));
}

// To the bit: values whose upper half rounds up, into the next exponent or
// beyond the largest, subnormal ones, and zeros of both signs.
TEST_F(SplitMatrixTest, LosesNoBit) {
  std::vector<int32_t> bits = {0x7f7fffff, 0x7f7f8000, 0x7f7f7fff, 0x3f7f8000,
                               0x3f7f7fff, 0x007fffff, 0x00000001, 0x00008000,
                               0x00000000, 0x3f80ffff};
  const size_t count = bits.size();
  for (size_t i = 0; i < count; ++i) {
    bits.push_back(static_cast<int32_t>(bits[i] | 0x80000000u));
  }
  const at::Tensor weight =
      at::tensor(bits, at::kInt).view({4, 5}).view(at::kFloat);
  EXPECT_TRUE(
      at::equal(SplitMatrix(weight, Parts::kThree).Weight().view(at::kInt),
                weight.view(at::kInt)));
}

// An activation that overflowed must not turn into a number.
TEST_F(SplitMatrixTest, InfinityDoesNotVanish) {
  for (int64_t rows : {2, 20}) {
    const SplitMatrix matrix(at::ones({40, 40}), Parts::kThree);
    at::Tensor x = at::ones({rows, 40});
    x[1][7] = std::numeric_limits<float>::infinity();
    const at::Tensor y = matrix.Multiply(x, {});
    EXPECT_TRUE(at::equal(y[0], at::full({40}, 40.0f)));
    EXPECT_FALSE(at::isfinite(y[1]).any().item<bool>());
  }
}

}  // namespace
}  // namespace cupola::model
