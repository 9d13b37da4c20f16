#include "server/analysis/logit_rows.h"

#include <cmath>
#include <limits>
#include <vector>

#include "ATen/ATen.h"
#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

TEST(LogitRows, EqualTheOperators) {
  for (const int64_t n : {1, 7, 32, 33, 1024, 1025, 50304}) {
    for (const float scale : {0.01f, 3.f, 100.f}) {
      const at::Tensor row = at::randn({n}) * scale;
      const float* data = row.const_data_ptr<float>();
      const double exact =
          at::logsumexp(row.to(at::kDouble), {0}).item<double>();
      EXPECT_NEAR(LogSumExp(data, n), exact,
                  1e-6 * std::max(1.0, std::abs(exact)));
      const float value = data[n / 2];
      EXPECT_EQ(CountAbove(data, n, value),
                row.gt(value).sum().item<int64_t>());
    }
  }
}

TEST(LogitRows, HandleInfinitiesAndNan) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> row = {-kInfinity, 0, 1};
  EXPECT_NEAR(LogSumExp(row.data(), 3), std::log1p(std::exp(1.0)), 1e-6);
  row[0] = kInfinity;
  EXPECT_EQ(LogSumExp(row.data(), 3), kInfinity);
  row[0] = std::nanf("");
  EXPECT_TRUE(std::isnan(LogSumExp(row.data(), 3)));
  EXPECT_EQ(CountAbove(row.data(), 3, 0.5f), 1);
}

}  // namespace
}  // namespace cupola::analysis
