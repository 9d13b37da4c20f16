#include "server/dictionary/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::dictionary {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

// What SelectTopK promises, by a full sort.
std::vector<int32_t> Sorted(const std::vector<float>& row, int64_t k,
                            float floor) {
  std::vector<int32_t> indices;
  for (size_t i = 0; i < row.size(); ++i) {
    if (row[i] > floor) indices.push_back(static_cast<int32_t>(i));
  }
  const int64_t kept = std::min<int64_t>(k, indices.size());
  std::partial_sort(indices.begin(), indices.begin() + kept, indices.end(),
                    [&row](int32_t a, int32_t b) {
                      return row[a] != row[b] ? row[a] > row[b] : a < b;
                    });
  indices.resize(kept);
  std::sort(indices.begin(), indices.end());
  return indices;
}

std::vector<int32_t> TopK(const std::vector<float>& row, int64_t k,
                          float floor) {
  SelectionScratch scratch;
  std::vector<int32_t> out;
  SelectTopK(row.data(), row.size(), k, floor, &scratch, &out);
  return out;
}

// Rows that are hard for a selection by parts' maxima.
std::vector<float> MakeRow(const std::string& kind, int64_t n) {
  std::mt19937 random(n);
  std::normal_distribution<float> normal;
  std::vector<float> row(n);
  for (int64_t i = 0; i < n; ++i) {
    const float noise = normal(random);
    if (kind == "normal") row[i] = noise;
    if (kind == "equal") row[i] = 1;
    if (kind == "negative") row[i] = -std::abs(noise) - 1;
    if (kind == "zero") row[i] = i % 2 == 0 ? 0.0f : -0.0f;
    if (kind == "ascending") row[i] = static_cast<float>(i);
    if (kind == "descending") row[i] = static_cast<float>(n - i);
    if (kind == "few values") row[i] = std::round(noise);
    if (kind == "denormal") row[i] = kDenormal * static_cast<float>(i % 7);
    if (kind == "infinities") row[i] = i % 5 == 0 ? kInf : -kInf;
    if (kind == "one part") row[i] = i % 16 == 3 ? 9 + noise : noise;
    if (kind == "one run") row[i] = i / 64 == 2 ? 9 + noise : noise;
    if (kind == "sparse") row[i] = i % 997 == 5 ? noise : -1;
  }
  return row;
}

constexpr const char* kKinds[] = {"normal",     "equal",     "negative",
                                  "zero",       "ascending", "descending",
                                  "few values", "denormal",  "infinities",
                                  "one part",   "one run",   "sparse"};

class SelectTopKTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SelectTopKTest, EqualsAFullSort) {
  for (int64_t n :
       {1, 5, 16, 63, 64, 65, 256, 1000, 1024, 4097, 16384, 24576}) {
    const std::vector<float> row = MakeRow(GetParam(), n);
    for (int64_t k : {1, 2, 8, 32, 64, 300, 5000, 30000}) {
      for (float floor : {0.0f, 0.5f, 3.0f}) {
        ASSERT_EQ(TopK(row, k, floor), Sorted(row, k, floor))
            << "n " << n << " k " << k << " floor " << floor;
      }
    }
  }
}

TEST_P(SelectTopKTest, SelectAboveEqualsAScan) {
  for (int64_t n : {0, 1, 63, 64, 65, 1000, 16384}) {
    const std::vector<float> row = MakeRow(GetParam(), n);
    for (float floor : {0.0f, 0.5f}) {
      std::vector<int32_t> out;
      SelectAbove(row.data(), n, floor, &out);
      ASSERT_EQ(out, Sorted(row, n, floor)) << "n " << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, SelectTopKTest, ::testing::ValuesIn(kKinds));

TEST(SelectionTest, TheLowestIndexWinsTies) {
  std::vector<float> row(4096, 0.5f);
  row[4000] = 2;
  EXPECT_THAT(TopK(row, 3, 0), ElementsAre(0, 1, 4000));
  row[1] = 0.25f;
  EXPECT_THAT(TopK(row, 3, 0), ElementsAre(0, 2, 4000));
}

TEST(SelectionTest, NanIsNeverSelected) {
  for (int64_t n : {10, 100, 4096, 4099}) {
    std::vector<float> row = MakeRow("normal", n);
    for (int64_t i = 0; i < n; i += 3) row[i] = kNan;
    std::vector<float> without = row;
    for (float& v : without) {
      if (std::isnan(v)) v = -1;
    }
    EXPECT_EQ(TopK(row, 8, 0), Sorted(without, 8, 0));
    std::vector<int32_t> above;
    SelectAbove(row.data(), n, 0, &above);
    EXPECT_EQ(above, Sorted(without, n, 0));
  }
}

TEST(SelectionTest, AppendsToWhatIsThere) {
  const std::vector<float> row = {1, 3, 2};
  SelectionScratch scratch;
  std::vector<int32_t> out = {7};
  SelectTopK(row.data(), 3, 2, 0, &scratch, &out);
  SelectAbove(row.data(), 3, 2.5f, &out);
  EXPECT_THAT(out, ElementsAre(7, 1, 2, 1));
}

TEST(SelectionTest, KOfZeroSelectsNothing) {
  EXPECT_THAT(TopK({1, 2}, 0, 0), IsEmpty());
}

TEST(SelectionTest, JumpReluIsStrict) {
  std::vector<float> row = {1.0f, 1.5f, -1.0f, 0.5f};
  const std::vector<float> threshold = {1.0f, 1.0f, -2.0f, 0.25f};
  ApplyJumpRelu(threshold.data(), 4, row.data());
  EXPECT_THAT(row, ElementsAre(0, 1.5f, 0, 0.5f));
}

TEST(SelectionTest, GateIsStrictAndMagnitudeRectified) {
  std::vector<float> row = {1, 1, 1};
  const std::vector<float> gate = {-1, 0, 0}, scale = {2, 2, 2},
                           magnitude = {0, 1, -3};
  ApplyGate(gate.data(), scale.data(), magnitude.data(), 3, row.data());
  EXPECT_THAT(row, ElementsAre(0, 3, 0));
}

TEST(SelectionTest, FindsTheFirstNonFinite) {
  std::vector<float> values(200000, 1e38f);
  EXPECT_EQ(FirstNonFinite(values.data(), values.size()), 200000);
  values[150000] = -kInf;
  EXPECT_EQ(FirstNonFinite(values.data(), values.size()), 150000);
  values[70001] = kNan;
  EXPECT_EQ(FirstNonFinite(values.data(), values.size()), 70001);
  EXPECT_EQ(FirstNonFinite(values.data(), 70001), 70001);
}

}  // namespace
}  // namespace cupola::dictionary
