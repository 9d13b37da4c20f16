#include "server/model/linear.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"

namespace cupola::model {
namespace {

struct Case {
  int64_t rows, in, out;
  bool bias;
};

class LinearTest : public testing::TestWithParam<Case> {
 protected:
  LinearTest() { at::manual_seed(1); }

  // The largest error, relative to the largest value, of a product in `dtype`
  // against the same rounded inputs in float64.
  static double Error(at::ScalarType dtype, const Case& c,
                      Precision precision = Precision::kFull) {
    const at::Tensor weight = at::randn({c.in, c.out}).to(dtype);
    const at::Tensor bias =
        c.bias ? at::randn({c.out}).to(dtype) : at::Tensor();
    const at::Tensor x = at::randn({c.rows, c.in}).to(dtype);
    const Linear linear =
        Linear::Create(weight, bias, dtype, at::kCPU, precision);
    EXPECT_EQ(linear.in_features(), c.in);
    EXPECT_EQ(linear.out_features(), c.out);
    // What it holds is what it was given, to the bit.
    EXPECT_TRUE(at::equal(linear.Weight(), weight));
    const at::Tensor some = at::tensor({c.out - 1, int64_t{0}}, at::kLong);
    EXPECT_TRUE(at::equal(linear.Columns(some), weight.index_select(1, some)));
    at::Tensor expected = at::matmul(x.to(at::kDouble), weight.to(at::kDouble));
    if (c.bias) expected = expected + bias.to(at::kDouble);
    const at::Tensor y = linear(x);
    EXPECT_EQ(y.sizes(), expected.sizes());
    EXPECT_EQ(y.scalar_type(), dtype);
    if (y.numel() == 0) return 0;
    at::Tensor error = (y.to(at::kDouble) - expected).abs();
    if (precision == Precision::kReduced) {
      // What two parts may leave out: see split_matrix.h.
      error = error - 3 * 0x1p-16 *
                          at::matmul(x.abs().to(at::kDouble),
                                     weight.abs().to(at::kDouble));
    }
    return std::max(0.0, (error.max() / expected.abs().max()).item<double>());
  }
};

// A float32 sum of n products errs by at most n * 2^-24 of the sum of their
// sizes, here at most sqrt(n) times the largest result; sums in blocks do far
// better, and a random walk better still: sqrt(n) * 2^-24 * 4.
TEST_P(LinearTest, Float32EqualsFloat64) {
  const double n = static_cast<double>(GetParam().in);
  EXPECT_LE(Error(at::kFloat, GetParam()), 4 * std::sqrt(n) * 0x1p-24);
}

// The same beside what two parts may leave out.
TEST_P(LinearTest, ReducedFloat32EqualsFloat64) {
  const double n = static_cast<double>(GetParam().in);
  EXPECT_LE(Error(at::kFloat, GetParam(), Precision::kReduced),
            4 * std::sqrt(n) * 0x1p-24);
}

// Sums are float32; the result is rounded to 8 bits.
TEST_P(LinearTest, BFloat16EqualsFloat64) {
  const double n = static_cast<double>(GetParam().in);
  EXPECT_LE(Error(at::kBFloat16, GetParam()),
            0x1p-8 + 4 * std::sqrt(n) * 0x1p-24);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, LinearTest,
    testing::Values(Case{1, 16, 16, false}, Case{3, 17, 33, true},
                    Case{0, 16, 32, true}, Case{32, 512, 1536, true},
                    Case{200, 300, 70, false}, Case{5, 1, 1, true}));

TEST(LinearOwnershipTest, KeepsLeadingDimensionsAndAcceptsAnyLayout) {
  const at::Tensor weight = at::randn({12, 8}).t();  // [8, 12], not contiguous
  const Linear linear = Linear::Create(weight, {}, at::kFloat, at::kCPU);
  const at::Tensor x = at::randn({4, 3, 8}).transpose(0, 1);
  const at::Tensor y = linear(x);
  EXPECT_EQ(y.sizes(), at::IntArrayRef({3, 4, 12}));
  EXPECT_TRUE(at::allclose(y, at::matmul(x, weight), 1e-5, 1e-5));
}

TEST(LinearOwnershipTest, DoesNotSeeLaterChangesOfTheWeight) {
  at::Tensor weight = at::ones({8, 4});
  at::Tensor transposed = at::ones({4, 8});
  const Linear first = Linear::Create(weight, {}, at::kFloat, at::kCPU);
  const Linear second =
      Linear::Create(transposed.t(), {}, at::kFloat, at::kCPU);
  weight.zero_();
  transposed.zero_();
  const at::Tensor x = at::ones({1, 8});
  EXPECT_EQ(first(x).sum().item<float>(), 32);
  EXPECT_EQ(second(x).sum().item<float>(), 32);
}

TEST(LinearOwnershipTest, ASharedWeightIsNotCounted) {
  const at::Tensor table = at::randn({10, 4});
  const Linear shared = Linear::Shared(table, {});
  EXPECT_EQ(shared.resident_bytes(), 0);
  EXPECT_TRUE(at::equal(shared.Weight(), table.t()));
  const at::Tensor x = at::randn({2, 4});
  EXPECT_TRUE(at::allclose(shared(x), at::matmul(x, table.t())));
  const Linear owned = Linear::Create(table.t(), {}, at::kFloat, at::kCPU);
  EXPECT_GE(owned.resident_bytes(), static_cast<int64_t>(table.nbytes()));
  EXPECT_TRUE(shared.defined());
  EXPECT_FALSE(Linear().defined());
}

}  // namespace
}  // namespace cupola::model
