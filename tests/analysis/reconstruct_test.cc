#include "server/analysis/reconstruct.h"

#include <cmath>

#include "gtest/gtest.h"
#include "server/analysis/tensor_io.h"

namespace cupola::analysis {
namespace {

std::shared_ptr<const std::vector<storage::Array>> Record(
    const at::Tensor& reconstruction, const at::Tensor& target) {
  return std::make_shared<const std::vector<storage::Array>>(
      std::vector<storage::Array>{
          ToArray(reconstruction, storage::DType::kFloat32),
          ToArray(target, storage::DType::kFloat32)});
}

TEST(FractionOfVarianceUnexplained, TakesOneMeanOverAllRecords) {
  const at::Tensor target =
      at::tensor({1.f, 2.f, 3.f, 5.f, 8.f, 13.f}).reshape({3, 2});
  const at::Tensor reconstruction = target + 0.5;
  // By hand: 6 * 0.25 over the two columns' squared deviations.
  const double variance =
      (target - target.mean(0)).square().sum().item<double>();
  EXPECT_NEAR(
      FractionOfVarianceUnexplained(
          {Record(reconstruction.narrow(0, 0, 1), target.narrow(0, 0, 1)),
           Record(reconstruction.narrow(0, 1, 2), target.narrow(0, 1, 2))}),
      1.5 / variance, 1e-6);
}

TEST(FractionOfVarianceUnexplained, IsZeroForAPerfectAndOneForTheMean) {
  const at::Tensor target = at::tensor({1.f, 3.f}).reshape({2, 1});
  EXPECT_EQ(FractionOfVarianceUnexplained({Record(target, target)}), 0);
  EXPECT_EQ(
      FractionOfVarianceUnexplained({Record(at::full({2, 1}, 2.f), target)}),
      1);
}

TEST(FractionOfVarianceUnexplained, IsNanWhereItHasNoMeaning) {
  EXPECT_TRUE(std::isnan(FractionOfVarianceUnexplained(
      {Record(at::zeros({2, 1}), at::empty({0, 1}))})));
  EXPECT_TRUE(std::isnan(FractionOfVarianceUnexplained(
      {Record(at::zeros({2, 1}), at::ones({2, 1}))})));
}

}  // namespace
}  // namespace cupola::analysis
