#include "server/analysis/assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kMin = Objective::kMinimize;
constexpr auto kMax = Objective::kMaximize;

std::vector<int64_t> Assign(const at::Tensor& values, Objective objective) {
  const auto assigned = AssignOneToOne(values, objective, {});
  EXPECT_TRUE(assigned.ok()) << assigned.status();
  return assigned.value_or(std::vector<int64_t>());
}

double Sum(const at::Tensor& values, const std::vector<int64_t>& assigned) {
  double sum = 0;
  for (size_t row = 0; row < assigned.size(); ++row) {
    if (assigned[row] < 0) continue;
    sum += values[row][assigned[row]].item<double>();
  }
  return sum;
}

// Each column once, and as many pairs as there can be.
void ExpectOneToOne(const at::Tensor& values, std::vector<int64_t> assigned) {
  ASSERT_EQ(static_cast<int64_t>(assigned.size()), values.size(0));
  std::sort(assigned.begin(), assigned.end());
  const auto first = std::lower_bound(assigned.begin(), assigned.end(), 0);
  EXPECT_EQ(assigned.end() - first, std::min(values.size(0), values.size(1)));
  EXPECT_EQ(std::adjacent_find(first, assigned.end()), assigned.end());
  EXPECT_LT(assigned.back(), values.size(1));
}

// The best sum of all assignments. Rows <= columns <= 8.
double BestByTrying(const at::Tensor& values, bool maximize) {
  const auto cost = values.accessor<double, 2>();
  std::vector<int64_t> columns(values.size(1));
  std::iota(columns.begin(), columns.end(), 0);
  double best = std::numeric_limits<double>::infinity();
  do {
    double sum = 0;
    for (int64_t row = 0; row < values.size(0); ++row) {
      sum += cost[row][columns[row]];
    }
    best = std::min(best, maximize ? -sum : sum);
  } while (std::next_permutation(columns.begin(), columns.end()));
  return maximize ? -best : best;
}

TEST(AssignmentTest, FindsTheBestOfAHandful) {
  const at::Tensor costs =
      at::tensor({4.0, 1.0, 3.0, 2.0, 0.0, 5.0, 3.0, 2.0, 2.0}).view({3, 3});
  EXPECT_THAT(Assign(costs, kMin), ElementsAre(1, 0, 2));
  EXPECT_THAT(Assign(costs, kMax), ElementsAre(0, 2, 1));
  EXPECT_THAT(Assign(at::tensor({3.0}).view({1, 1}), kMin), ElementsAre(0));
  EXPECT_THAT(Assign(at::zeros({2, 0}, at::kDouble), kMin),
              ElementsAre(-1, -1));
}

TEST(AssignmentTest, IsAsGoodAsTheBestOfAllPermutations) {
  at::manual_seed(3);
  for (int trial = 0; trial < 150; ++trial) {
    const int64_t rows = 1 + trial % 6, columns = rows + trial % 3;
    at::Tensor values = at::randn({rows, columns}, at::kDouble);
    // Many ties, and now and then a tie of everything.
    if (trial % 3 == 1) values = at::round(values);
    if (trial % 10 == 2) values = at::ones_like(values);
    for (Objective objective : {kMin, kMax}) {
      const double best = BestByTrying(values, objective == kMax);
      const auto assigned = Assign(values, objective);
      ExpectOneToOne(values, assigned);
      EXPECT_NEAR(Sum(values, assigned), best, 1e-12 * (1 + std::fabs(best)));
      // More rows than columns: the same sum.
      const at::Tensor tall = values.t().contiguous();
      const auto turned = Assign(tall, objective);
      ExpectOneToOne(tall, turned);
      EXPECT_NEAR(Sum(tall, turned), best, 1e-12 * (1 + std::fabs(best)));
      const at::Tensor narrow = values.to(at::kFloat);
      EXPECT_NEAR(Sum(narrow, Assign(narrow, objective)), best,
                  1e-6 * (1 + std::fabs(best)));
    }
  }
}

// Weak duality: numbers u and v with u + v <= cost everywhere bound every sum
// from below, so a sum that they reach is the best. They are found from the
// assignment alone, as shortest distances between rows.
void ExpectOptimal(const at::Tensor& costs,
                   const std::vector<int64_t>& column_of) {
  const auto cost = costs.accessor<double, 2>();
  const int64_t n = costs.size(0);
  std::vector<double> v(n, 0);  // Bellman-Ford over columns
  bool changed = true;
  for (int round = 0; changed && round <= n; ++round) {
    ASSERT_LT(round, n) << "an exchange of columns makes it cheaper";
    changed = false;
    for (int64_t row = 0; row < n; ++row) {
      const int64_t mine = column_of[row];
      for (int64_t j = 0; j < n; ++j) {
        const double through = v[mine] + cost[row][j] - cost[row][mine];
        if (through < v[j] - 1e-9) {
          v[j] = through;
          changed = true;
        }
      }
    }
  }
}

TEST(AssignmentTest, NoExchangeImprovesALargeOne) {
  at::manual_seed(4);
  for (int kind = 0; kind < 3; ++kind) {
    at::Tensor costs = at::rand({150, 150}, at::kDouble);
    if (kind == 1) costs = at::floor(costs * 4);
    // As cosines of two dictionaries: mostly 1, dead rows and columns.
    if (kind == 2) {
      costs = at::where(costs < 0.05, costs, at::ones_like(costs));
      costs.narrow(0, 10, 20).fill_(1);
      costs.narrow(1, 40, 30).fill_(1);
    }
    const auto assigned = Assign(costs, kMin);
    ExpectOneToOne(costs, assigned);
    ExpectOptimal(costs, assigned);
  }
}

TEST(AssignmentTest, PermutingTheColumnsPermutesTheAssignment) {
  at::manual_seed(5);
  const at::Tensor values = at::rand({70, 90}, at::kDouble);
  const at::Tensor order = at::randperm(90);
  const auto plain = Assign(values, kMax);
  const auto permuted = Assign(values.index_select(1, order), kMax);
  for (size_t row = 0; row < plain.size(); ++row) {
    EXPECT_EQ(order[permuted[row]].item<int64_t>(), plain[row]);
  }
}

TEST(AssignmentTest, RefusesWhatIsNotFiniteOrNoMatrix) {
  at::Tensor values = at::ones({2, 3}, at::kDouble);
  values[1][2] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(AssignOneToOne(values, kMin, {}).status().message(),
              HasSubstr("values[1][2] is nan"));
  EXPECT_EQ(AssignOneToOne(at::ones({3}), kMin, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      AssignOneToOne(at::ones({3, 3}, at::kLong), kMin, {}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(AssignmentTest, StopsWhenNobodyWaits) {
  const at::Tensor values = at::rand({200, 200}, at::kDouble);
  const auto stop = [] { return absl::CancelledError("nobody waits"); };
  EXPECT_EQ(AssignOneToOne(values, kMin, stop).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace cupola::analysis
