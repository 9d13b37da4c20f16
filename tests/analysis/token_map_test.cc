#include "server/analysis/token_map.h"

#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

constexpr double kStep = 1e-3;

at::Tensor Random(at::IntArrayRef shape) {
  return at::randn(shape, at::kDouble);
}

// The derivative and the curvature of a normalisation against differences of
// its own values. Double, so that differences mean something.
template <typename Make>
void ExpectDerivatives(const Make& make) {
  at::manual_seed(1);
  const at::Tensor x = Random({4, 6}) + 0.5, v = Random({4, 1, 6});
  const at::Tensor move = kStep * v.squeeze(1);
  const Normalisation here = make(x);
  const at::Tensor ahead = make(x + move).value();
  const at::Tensor behind = make(x - move).value();
  const at::Tensor slope = (ahead - behind) / (2 * kStep);
  const at::Tensor bend = (ahead + behind - 2 * here.value()) / (kStep * kStep);
  EXPECT_LT((Apply(here.derivative(), v).squeeze(1) - slope)
                .abs()
                .max()
                .item<double>(),
            1e-5);
  EXPECT_LT((here.Curvature(v).squeeze(1) - bend).abs().max().item<double>(),
            1e-4);
  // A transposed map is the map's adjoint.
  const at::Tensor w = Random({4, 1, 6});
  const TokenMap map = here.derivative();
  EXPECT_LT(((Apply(map, v) * w).sum() - (v * Apply(Transposed(map), w)).sum())
                .abs()
                .item<double>(),
            1e-10);
}

TEST(Normalisation, DifferentiatesNorms) {
  for (const auto kind :
       {model::NormKind::kLayerNorm, model::NormKind::kRmsNorm}) {
    ExpectDerivatives([kind](const at::Tensor& x) {
      model::Norm norm;
      norm.kind = kind;
      norm.eps = 1e-2;
      return Normalisation(norm, x);
    });
  }
}

TEST(Normalisation, DifferentiatesADictionarysOwn) {
  for (const auto normalize : {dictionary::Normalize::kLayerNorm,
                               dictionary::Normalize::kConstantNormRescale}) {
    ExpectDerivatives([normalize](const at::Tensor& x) {
      return Normalisation(normalize, x);
    });
  }
}

TEST(TokenMap, ComposesInOrder) {
  const TokenMap first = {Random({6}), Random({4, 1}), Random({4, 2, 6}),
                          Random({4, 2, 6})};
  const TokenMap second = {
      {}, Random({4, 1}), Random({4, 1, 6}), Random({4, 1, 6})};
  const at::Tensor v = Random({4, 3, 6});
  EXPECT_TRUE(at::allclose(Apply(Compose(first, second), v),
                           Apply(second, Apply(first, v))));
  EXPECT_TRUE(at::allclose(Apply(Compose(second, first), v),
                           Apply(first, Apply(second, v))));
  const at::Tensor some = at::tensor({2, 0}, at::kLong);
  EXPECT_TRUE(at::allclose(Apply(first.Select(some), v.index_select(0, some)),
                           Apply(first, v).index_select(0, some)));
}

}  // namespace
}  // namespace cupola::analysis
