#include "server/analysis/jacobian_totals.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/state_file.h"

namespace cupola::analysis {
namespace {

using ::testing::ElementsAre;

constexpr auto kTokens = JacobianDivisor::kTokens;
constexpr auto kActive = JacobianDivisor::kOutActive;

struct Row {
  int32_t out;
  std::vector<int32_t> in;
  std::vector<float> values;
};

// One token.
void Add(const std::vector<Row>& rows, JacobianTotals* totals,
         bool ascending = false) {
  std::vector<JacobianTotals::TokenRow> added;
  for (const Row& row : rows) {
    added.push_back({row.out, row.in.data(), row.values.data(),
                     static_cast<int64_t>(row.in.size()), ascending});
  }
  totals->Add(1, added);
}

// Two tokens: outputs 1 and 2, then output 1 alone.
void AddTwoTokens(JacobianTotals* totals) {
  Add({{1, {0, 3, -1}, {0.5f, -0.25f, 9}}, {2, {0, 3, -1}, {0, 2, 9}}}, totals);
  Add({{1, {3}, {-0.75f}}}, totals);
}

JacobianTotalsOptions Options(bool float64 = false) {
  return {4, 5, float64, 4, 1.0};
}

TEST(JacobianTotalsTest, AddsUpAbsoluteValuesAndSkipsPadding) {
  for (bool float64 : {false, true}) {
    JacobianTotals totals(Options(float64));
    AddTwoTokens(&totals);
    EXPECT_EQ(totals.tokens(), 2);
    EXPECT_THAT(totals.active(), ElementsAre(0, 2, 1, 0));
    // 0.25, 0.5, 0.75 and 2 in bins of a quarter, and what is behind.
    EXPECT_THAT(totals.histogram(), ElementsAre(0, 1, 1, 1, 1));
    EXPECT_THAT(totals.Row(JacobianStatistic::kSum, kTokens, 1),
                ElementsAre(0.5, 0, 0, 1, 0));
    EXPECT_THAT(totals.Row(JacobianStatistic::kMax, kTokens, 1),
                ElementsAre(0.5, 0, 0, 0.75, 0));
    EXPECT_THAT(totals.Row(JacobianStatistic::kCount, kTokens, 1),
                ElementsAre(1, 0, 0, 2, 0));
    EXPECT_THAT(totals.Column(JacobianStatistic::kMean, kTokens, 3),
                ElementsAre(0, 0.5, 1, 0));
    EXPECT_THAT(totals.Column(JacobianStatistic::kMean, kActive, 3),
                ElementsAre(0, 0.5, 2, 0));
  }
}

TEST(JacobianTotalsTest, CountsWhatIsStrictlyAbove) {
  JacobianTotals totals(Options());
  AddTwoTokens(&totals);
  // Sums: 0.5, 1 and 2.
  EXPECT_THAT(totals.CountAbove(JacobianStatistic::kSum, kTokens,
                                {2, 0, 1, 0.5, 0.4, 1}),
              ElementsAre(0, 3, 1, 2, 3, 1));
}

TEST(JacobianTotalsTest, TheLowestLatentsWinTies) {
  JacobianTotals totals(Options());
  Add({{3, {2, 4}, {1, 1}}, {0, {2, 4}, {1, 1}}}, &totals);
  const auto top = totals.Top(JacobianStatistic::kSum, kTokens, 3);
  ASSERT_EQ(top.size(), 3u);
  EXPECT_EQ(top[0].out, 0);
  EXPECT_EQ(top[0].in, 2);
  EXPECT_EQ(top[1].out, 0);
  EXPECT_EQ(top[1].in, 4);
  EXPECT_EQ(top[2].out, 3);
  EXPECT_EQ(top[2].in, 2);
  EXPECT_EQ(totals.Top(JacobianStatistic::kSum, kTokens, 100).size(), 4u);
  EXPECT_TRUE(totals.Top(JacobianStatistic::kSum, kTokens, 0).empty());
}

// Rows of more than a block, whole and with gaps, one by one and many at once,
// give what plain additions give.
TEST(JacobianTotalsTest, LongRowsAddUpLikeShortOnes) {
  constexpr int64_t kWidth = 1300;
  std::mt19937 random(11);
  std::vector<Row> rows;
  for (int i = 0; i < 40; ++i) {
    Row& row =
        rows.emplace_back(Row{static_cast<int32_t>(random() % 20), {}, {}});
    for (int32_t in = 0; in < kWidth; ++in) {
      if (i % 2 == 1 && random() % 50 == 0) continue;
      row.in.push_back(in);
      row.values.push_back(in % 97 == 0 ? 0
                           : in % 89 == 0
                               ? NAN
                               : std::normal_distribution<float>(0, 1)(random));
    }
  }
  for (bool float64 : {false, true}) {
    const JacobianTotalsOptions options = {20, kWidth, float64, 30, 1.5};
    JacobianTotals fast(options), slow(options);
    std::vector<JacobianTotals::TokenRow> all;
    std::vector<int64_t> histogram(31);
    for (const Row& row : rows) {
      all.push_back({row.out, row.in.data(), row.values.data(),
                     static_cast<int64_t>(row.in.size()), true});
      Add({row}, &slow);
      for (float value : row.values) {
        if (!(std::fabs(value) > 0)) continue;
        ++histogram[std::min<int64_t>(30, std::fabs(value) * (30 / 1.5))];
      }
    }
    fast.Add(40, all);
    EXPECT_EQ(fast.tokens(), slow.tokens());
    EXPECT_EQ(fast.active(), slow.active());
    EXPECT_EQ(fast.histogram(), slow.histogram());
    EXPECT_EQ(fast.histogram(), histogram);
    for (auto statistic : {JacobianStatistic::kSum, JacobianStatistic::kMax,
                           JacobianStatistic::kCount}) {
      for (int32_t out = 0; out < 20; ++out) {
        EXPECT_EQ(fast.Row(statistic, kTokens, out),
                  slow.Row(statistic, kTokens, out));
      }
    }
  }
}

// Against plain sums over random tokens, with a save and a restore in between.
TEST(JacobianTotalsTest, ARestoredStateGoesOnToTheSameBits) {
  std::mt19937 random(7);
  std::vector<std::vector<Row>> tokens;
  for (int t = 0; t < 60; ++t) {
    auto& rows = tokens.emplace_back();
    for (int32_t out = 0; out < 4; ++out) {
      if (random() % 2) continue;
      Row& row = rows.emplace_back(Row{out, {}, {}});
      for (int32_t in = 0; in < 5; ++in) {
        if (random() % 3 == 0) continue;
        row.in.push_back(in);
        row.values.push_back(std::normal_distribution<float>(0, 0.4f)(random));
      }
    }
  }
  const auto add = [&](JacobianTotals* totals, int begin, int end) {
    for (int t = begin; t < end; ++t) Add(tokens[t], totals);
  };
  for (bool float64 : {false, true}) {
    JacobianTotals straight(Options(float64)), first(Options(float64)),
        second(Options(float64));
    add(&straight, 0, 60);
    add(&first, 0, 23);
    const std::string path = testing::TempDir() + "/totals.state";
    auto writer = storage::StateWriter::Create(
        path, {"test", JacobianTotals::kVersion, {}, 23});
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(first.Save(writer->get()).ok());
    ASSERT_TRUE((*writer)->Commit().ok());
    auto reader = storage::StateReader::Open(path);
    ASSERT_TRUE(reader.ok()) << reader.status();
    ASSERT_TRUE(second.Restore(reader->get()).ok());
    add(&second, 23, 60);
    EXPECT_EQ(second.tokens(), straight.tokens());
    EXPECT_EQ(second.active(), straight.active());
    EXPECT_EQ(second.histogram(), straight.histogram());
    for (auto statistic :
         {JacobianStatistic::kSum, JacobianStatistic::kMean,
          JacobianStatistic::kMax, JacobianStatistic::kCount}) {
      for (int32_t out = 0; out < 4; ++out) {
        EXPECT_EQ(second.Row(statistic, kActive, out),
                  straight.Row(statistic, kActive, out));
      }
    }
    std::map<int32_t, double> sums;  // of output 2
    for (const auto& rows : tokens) {
      for (const Row& row : rows) {
        for (size_t i = 0; row.out == 2 && i < row.in.size(); ++i) {
          sums[row.in[i]] += std::fabs(row.values[i]);
        }
      }
    }
    const auto row = straight.Row(JacobianStatistic::kSum, kTokens, 2);
    for (const auto& [in, sum] : sums) EXPECT_NEAR(row[in], sum, 1e-5);

    JacobianTotals other({4, 6, float64, 4, 1.0});
    reader = storage::StateReader::Open(path);
    EXPECT_EQ(other.Restore(reader->get()).code(), absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace cupola::analysis
