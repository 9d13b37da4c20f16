#include "server/model/activation_derivative.h"

#include "gtest/gtest.h"
#include "server/model/mlp.h"

namespace cupola::model {
namespace {

constexpr double kStep = 1e-4;

TEST(DifferentiateActivation, MatchesDifferences) {
  // Away from a ReLU's kink.
  const at::Tensor x = at::linspace(-6, 6, 49, at::kDouble) + 0.013;
  for (const Activation activation :
       {Activation::kGelu, Activation::kGeluNew, Activation::kGeluFast,
        Activation::kSilu, Activation::kRelu}) {
    const ActivationJet jet = DifferentiateActivation(activation, x, true);
    const at::Tensor here = Activate(activation, x);
    const at::Tensor ahead = Activate(activation, x + kStep);
    const at::Tensor behind = Activate(activation, x - kStep);
    EXPECT_TRUE(at::allclose(jet.value, here, 1e-9, 1e-12));
    EXPECT_LT(
        (jet.first - (ahead - behind) / (2 * kStep)).abs().max().item<double>(),
        1e-7);
    EXPECT_LT((jet.second - (ahead + behind - 2 * here) / (kStep * kStep))
                  .abs()
                  .max()
                  .item<double>(),
              1e-6);
  }
  EXPECT_FALSE(
      DifferentiateActivation(Activation::kSilu, x, false).second.defined());
}

TEST(DifferentiateActivation, AReluIsFlatAtZero) {
  const ActivationJet jet =
      DifferentiateActivation(Activation::kRelu, at::zeros({1}), true);
  EXPECT_EQ(jet.first.item<float>(), 0);
}

}  // namespace
}  // namespace cupola::model
