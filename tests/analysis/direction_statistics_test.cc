#include "server/analysis/direction_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/analysis/sparse_corpus.h"
#include "tests/analysis/state_copy.h"

namespace cupola::analysis {
namespace {

using ::testing::HasSubstr;

// RandomCorpus' rows have 8 tokens.
constexpr int64_t kLatents = 29, kRows = 60, kRowTokens = 8;

DirectionStatisticsOptions Options() {
  DirectionStatisticsOptions options;
  options.latents = kLatents;
  options.top_k = 3;
  options.active_above = 0.5;
  options.rows_per_latent = 5;
  options.mean_rows = 40;
  options.prompts = {2, 3, 7};
  return options;
}

// Rows first .. first + count - 1; latent 7 has effects wherever it is scored.
void Add(const SparseCorpus& corpus, int64_t first, int64_t count,
         DirectionStatistics* statistics) {
  std::vector<DirectionStatistics::Effect> effects;
  std::vector<float> losses, values;
  for (int64_t row = first; row < first + count; ++row) {
    effects.push_back({row, 7, 0.25f * row, 0.5f * row});
    losses.push_back(1.0f + row);
    for (int c = 0; c < 3; ++c) values.push_back(0.5f * row + c);
  }
  for (int64_t row = first; row < first + count; ++row) {
    losses.push_back(1.5f + 2 * row);
  }
  std::vector<int64_t> indptr;
  statistics->Add(corpus.View(first * kRowTokens, count * kRowTokens, &indptr),
                  corpus.Places(first * kRowTokens), effects);
  PromptTotals& prompts = statistics->prompts();
  prompts.AddLosses(losses.data(), count);
  prompts.AddAttribution(values.data(), count);
  const std::vector<double> clean(7, -2.0 * count), changed(7, -3.0 * count);
  prompts.AddLogprobs(clean.data(), changed.data(), count);
  prompts.CountTokens({0, 6, 6});
}

TEST(DirectionStatisticsTest, AreTheDefinitions) {
  const SparseCorpus corpus = RandomCorpus(kRows * kRowTokens, kLatents, 3);
  DirectionStatistics statistics(Options());
  Add(corpus, 0, kRows, &statistics);
  EXPECT_EQ(statistics.rows(), kRows);
  int kept = 0, early_active = 0;
  for (int32_t latent = 0; latent < kLatents; ++latent) {
    float largest = 0;
    std::vector<float> early;
    std::vector<int64_t> rows;
    for (int64_t t = 0; t < corpus.tokens(); ++t) {
      const float value = corpus.At(t, latent);
      largest = std::max(largest, value);
      if (t % kRowTokens != kRowTokens - 1) continue;
      if (value > 0 && t / kRowTokens < 40) early.push_back(value);
      if (value > 0.5) rows.push_back(t / kRowTokens);
    }
    EXPECT_EQ(statistics.Largest(latent), largest);
    EXPECT_EQ(statistics.Count(latent), rows.size());
    rows.resize(std::min<size_t>(rows.size(), 5));
    ASSERT_EQ(statistics.ActiveRows(latent).size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      const ActiveRow& active = statistics.ActiveRows(latent)[i];
      EXPECT_EQ(active.row, rows[i]);
      EXPECT_EQ(active.position, kRowTokens - 1);
      if (latent == 7) {
        EXPECT_EQ(active.loss_increase, 0.25f * rows[i]);
        EXPECT_EQ(active.loss_increase_encoded, 0.5f * rows[i]);
      } else {
        EXPECT_TRUE(std::isnan(active.loss_increase));
      }
      ++kept;
    }
    double n = 1e-9, sum = 0;
    for (float value : early) {
      if (value <= 0.3 * largest) continue;
      n += 1;
      sum += value;
    }
    early_active += n > 1;
    const DirectionShare share = statistics.Share(latent, 0.3, 0.1);
    EXPECT_DOUBLE_EQ(share.share, n / 40);
    EXPECT_DOUBLE_EQ(share.mean, n < 4 ? 0 : sum / n);
  }
  EXPECT_GT(kept, 20);
  EXPECT_GT(early_active, 10);
  // A row is named once, by its largest activation.
  const std::vector<Example> top = statistics.Top(0);
  ASSERT_EQ(top.size(), 3);
  EXPECT_EQ(top[0].value, statistics.Largest(0));
  EXPECT_TRUE(top[0].row != top[1].row && top[1].row != top[2].row);
}

TEST(DirectionStatisticsTest, MeansOfPrompts) {
  PromptTotals totals({2, 1, 3});
  EXPECT_EQ(totals.MeanLosses(), (std::vector<double>{0, 0}));
  const float losses[] = {1, 2, 3, 2, 2, 5};
  totals.AddLosses(losses, 3);
  EXPECT_EQ(totals.MeanLosses(), (std::vector<double>{2, 3}));
  EXPECT_EQ(totals.MeanIncreases(), (std::vector<double>{0, 1}));
  EXPECT_NEAR(totals.Deviations()[1], std::sqrt(2.0 / 3), 1e-12);
  const float values[] = {1, 4};
  totals.AddAttribution(values, 2);
  EXPECT_EQ(totals.MeanAttribution(), std::vector<double>{2.5});
  const double clean[] = {-2, -4, -6}, changed[] = {-4, -4, -2};
  totals.AddLogprobs(clean, changed, 2);
  EXPECT_EQ(totals.MeanClean(), (std::vector<double>{-1, -2, -3}));
  EXPECT_EQ(totals.MeanBoost(), (std::vector<double>{1, 0, -2}));
}

TEST(DirectionStatisticsTest, ResumedAndMergedEqualStraight) {
  const SparseCorpus corpus = RandomCorpus(kRows * kRowTokens, kLatents, 4);
  DirectionStatistics straight(Options()), before(Options()),
      resumed(Options()), second(Options());
  Add(corpus, 0, 25, &straight);
  Add(corpus, 25, 35, &straight);
  Add(corpus, 0, 25, &before);
  CopyThroughState(before, &resumed);
  Add(corpus, 25, 35, &resumed);
  EXPECT_EQ(StateBytes(resumed), StateBytes(straight));
  Add(corpus, 25, 35, &second);
  ASSERT_TRUE(before.Merge(second).ok());
  // The sums are of halves and whole numbers: nothing is rounded.
  EXPECT_EQ(StateBytes(before), StateBytes(straight));
  DirectionStatisticsOptions other = Options();
  other.active_above = 0.25;
  EXPECT_EQ(before.Merge(DirectionStatistics(other)).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(DirectionStatisticsTest, ForeignStatesAreRefused) {
  const SparseCorpus corpus = RandomCorpus(kRows * kRowTokens, kLatents, 5);
  DirectionStatistics statistics(Options());
  Add(corpus, 0, kRows, &statistics);
  const std::string body = StateBody(statistics);
  for (size_t size :
       {size_t{10}, size_t{100}, body.size() / 2, body.size() - 1}) {
    DirectionStatistics cut(Options());
    EXPECT_EQ(RestoreBytes(body.substr(0, size), &cut).code(),
              absl::StatusCode::kDataLoss);
  }
  DirectionStatistics longer(Options());
  EXPECT_EQ(RestoreBytes(body + "x", &longer).code(),
            absl::StatusCode::kDataLoss);
  // The length of the first list, behind the options, rows, counts and maxima.
  const size_t length = 9 * 8 + 8 + kLatents * (8 + 4);
  for (int64_t wrong : {int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
    std::string damaged = body;
    damaged.replace(length, 8, reinterpret_cast<const char*>(&wrong), 8);
    DirectionStatistics state(Options());
    EXPECT_THAT(RestoreBytes(damaged, &state).message(),
                HasSubstr("has a list of"));
  }
}

TEST(DirectionStatisticsTest, OptionsAreChecked) {
  const auto said = [](auto member, auto value) {
    DirectionStatisticsOptions options = Options();
    options.*member = value;
    return std::string(CheckOptions(options).message());
  };
  EXPECT_TRUE(CheckOptions(Options()).ok());
  EXPECT_THAT(said(&DirectionStatisticsOptions::latents, 0),
              HasSubstr("latents is 0"));
  EXPECT_THAT(said(&DirectionStatisticsOptions::top_k, -1),
              HasSubstr("top_k is -1"));
  EXPECT_THAT(said(&DirectionStatisticsOptions::mean_rows, 0),
              HasSubstr("mean_rows is 0"));
  EXPECT_THAT(said(&DirectionStatisticsOptions::rows_per_latent, -3),
              HasSubstr("rows_per_latent is -3"));
  EXPECT_THAT(said(&DirectionStatisticsOptions::active_above, -0.5),
              HasSubstr("active_above is -0.5; accepted"));
}

}  // namespace
}  // namespace cupola::analysis
