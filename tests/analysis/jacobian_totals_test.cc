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

// Two tokens: outputs 1 and 2, then output 1 alone.
void AddTwoTokens(JacobianTotals* totals) {
  const auto add = [totals](const Row& row) {
    totals->AddRow(row.out, row.in.data(), row.values.data(), row.in.size());
  };
  totals->BeginToken();
  add({1, {0, 3, -1}, {0.5f, -0.25f, 9}});
  add({2, {0, 3, -1}, {0, 2, 9}});
  totals->BeginToken();
  add({1, {3}, {-0.75f}});
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
  const int32_t in[] = {2, 4};
  const float values[] = {1, 1};
  totals.BeginToken();
  totals.AddRow(3, in, values, 2);
  totals.AddRow(0, in, values, 2);
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
    for (int t = begin; t < end; ++t) {
      totals->BeginToken();
      for (const Row& row : tokens[t]) {
        totals->AddRow(row.out, row.in.data(), row.values.data(),
                       row.in.size());
      }
    }
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
