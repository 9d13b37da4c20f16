#include "server/analysis/feature_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/analysis/sparse_corpus.h"
#include "tests/analysis/state_copy.h"

namespace cupola::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

FeatureStatisticsOptions Options(int64_t latents, int64_t top_k,
                                 bool distinct) {
  FeatureStatisticsOptions options;
  options.latents = latents;
  options.top_k = top_k;
  options.distinct_rows = distinct;
  return options;
}

void Add(const SparseCorpus& corpus, int64_t first, int64_t count,
         FeatureStatistics* statistics) {
  std::vector<int64_t> indptr;
  statistics->Add(corpus.View(first, count, &indptr), corpus.Places(first));
}

// Every example of a latent, the best first.
std::vector<Example> AllOf(const SparseCorpus& corpus, int32_t latent) {
  std::vector<Example> all;
  for (int64_t t = 0; t < corpus.tokens(); ++t) {
    const float value = corpus.At(t, latent);
    if (value > 0) all.push_back({value, corpus.position[t], corpus.row[t]});
  }
  std::sort(all.begin(), all.end(), Better);
  return all;
}

TEST(FeatureStatisticsTest, CountsSumsAndPlacesOfAHandfulOfTokens) {
  SparseCorpus corpus;
  corpus.latents = 4;
  corpus.AddToken(7, 0, {0, 2}, {2, 0.5f});
  corpus.AddToken(7, 1, {0}, {3});
  corpus.AddToken(3, 5, {0, 2}, {3, 0});  // a 0 is not active
  corpus.AddToken(3, 6, {}, {});
  FeatureStatistics statistics(Options(4, 2, false));
  Add(corpus, 0, 4, &statistics);
  EXPECT_EQ(statistics.tokens(), 4);
  EXPECT_EQ(statistics.Count(0), 3);
  EXPECT_EQ(statistics.Density(0), 0.75);
  EXPECT_EQ(statistics.PowerSum(0, 1), 8);
  EXPECT_EQ(statistics.PowerSum(0, 2), 22);
  EXPECT_EQ(statistics.PowerSum(0, 3), 62);
  EXPECT_EQ(statistics.PowerSum(0, 4), 178);
  EXPECT_DOUBLE_EQ(statistics.MeanOfActive(0), 8.0 / 3);
  EXPECT_EQ(statistics.Largest(0), 3);
  EXPECT_EQ(statistics.Count(2), 1);
  EXPECT_EQ(statistics.MeanOfActive(1), 0);
  EXPECT_THAT(statistics.DeadLatents(), ElementsAre(1, 3));
  // Of two threes, the one of the lower row.
  EXPECT_THAT(statistics.Top(0),
              ElementsAre(Example{3, 5, 3}, Example{3, 1, 7}));
  EXPECT_THAT(statistics.Top(1), IsEmpty());

  FeatureStatistics distinct(Options(4, 2, true));
  Add(corpus, 0, 4, &distinct);
  EXPECT_THAT(distinct.Top(0), ElementsAre(Example{3, 5, 3}, Example{3, 1, 7}));
  corpus.AddToken(7, 2, {0}, {4});
  Add(corpus, 4, 1, &distinct);
  EXPECT_THAT(distinct.Top(0), ElementsAre(Example{4, 2, 7}, Example{3, 5, 3}));
}

TEST(FeatureStatisticsTest, EveryValueIsBetweenTheEdgesOfItsBin) {
  const LogBins bins{-3, 5, 2};
  const std::vector<double> edges = bins.Edges();
  ASSERT_EQ(static_cast<int64_t>(edges.size()), bins.size() - 1);
  EXPECT_EQ(edges.front(), 0.125);
  EXPECT_EQ(edges[1], 0.125 * 1.25);
  EXPECT_EQ(edges.back(), 4);
  for (float value : {1e-40f, 0.12499f, 0.125f, 0.15624f, 0.15625f, 1.0f, 1.7f,
                      3.9999f, 4.0f, 3e38f}) {
    const int64_t bin = bins.Of(value);
    if (bin > 0) {
      EXPECT_LE(edges[bin - 1], value);
    }
    if (bin < bins.size() - 1) {
      EXPECT_LT(value, edges[bin]);
    }
  }
  EXPECT_EQ(bins.Of(1e-40f), 0);
  EXPECT_EQ(bins.Of(3e38f), bins.size() - 1);
}

TEST(FeatureStatisticsTest, AgreesWithPlainSumsOverARandomCorpus) {
  const SparseCorpus corpus = RandomCorpus(600, 30, 1);
  for (bool distinct : {false, true}) {
    FeatureStatistics statistics(Options(30, 5, distinct));
    Add(corpus, 0, 600, &statistics);
    for (int32_t latent = 0; latent < 30; ++latent) {
      std::vector<Example> all = AllOf(corpus, latent);
      double sums[4] = {};
      std::map<int64_t, int64_t> histogram;
      const auto edges = statistics.options().bins.Edges();
      for (const Example& example : all) {
        for (int p = 0; p < 4; ++p) {
          sums[p] += std::pow(double{example.value}, p + 1);
        }
        ++histogram[std::upper_bound(edges.begin(), edges.end(),
                                     double{example.value}) -
                    edges.begin()];
      }
      EXPECT_EQ(statistics.Count(latent), static_cast<int64_t>(all.size()));
      for (int p = 0; p < 4; ++p) {
        EXPECT_NEAR(statistics.PowerSum(latent, p + 1), sums[p],
                    1e-12 * sums[p]);
      }
      const auto counted = statistics.Histogram(latent);
      for (size_t bin = 0; bin < counted.size(); ++bin) {
        EXPECT_EQ(counted[bin], histogram[static_cast<int64_t>(bin)]);
      }
      std::set<int64_t> rows;
      std::vector<Example> best;
      for (const Example& example : all) {
        if (distinct && !rows.insert(example.row).second) continue;
        if (best.size() < 5) best.push_back(example);
      }
      EXPECT_EQ(statistics.Top(latent), best) << latent << " " << distinct;
    }
    EXPECT_THAT(statistics.DeadLatents(), ElementsAre(29));
  }
}

TEST(FeatureStatisticsTest, ExamplesOfIntervalsLieInThem) {
  const SparseCorpus corpus = RandomCorpus(800, 30, 2);
  FeatureStatistics statistics(Options(30, 5, true));
  Add(corpus, 0, 800, &statistics);
  for (int32_t latent = 0; latent < 30; ++latent) {
    const std::vector<Example> all = AllOf(corpus, latent);
    const auto drawn = statistics.OfIntervals(latent, 4, 5);
    ASSERT_EQ(drawn.size(), 4u);
    const double quarter = double{statistics.Largest(latent)} / 4;
    for (int i = 0; i < 4; ++i) {
      EXPECT_LE(drawn[i].size(), 5u);
      for (const Example& example : drawn[i]) {
        EXPECT_GE(example.value, i * quarter);
        if (i < 3) {
          EXPECT_LT(example.value, (i + 1) * quarter);
        }
        EXPECT_EQ(std::count(all.begin(), all.end(), example), 1);
      }
    }
  }
  EXPECT_THAT(statistics.OfIntervals(29, 2, 5),
              ElementsAre(IsEmpty(), IsEmpty()));
}

TEST(FeatureStatisticsTest, FewTokensAreAllAmongTheExamples) {
  SparseCorpus corpus;
  corpus.latents = 1;
  for (int i = 0; i < 5; ++i) corpus.AddToken(i, 0, {0}, {1.1f + 0.01f * i});
  corpus.AddToken(9, 0, {0}, {1000});  // the others fall into the lowest
  FeatureStatistics statistics(Options(1, 0, true));
  Add(corpus, 0, 6, &statistics);
  const auto drawn = statistics.OfIntervals(0, 2, 10);
  EXPECT_EQ(drawn[0].size(), 5u);
  EXPECT_THAT(drawn[1], ElementsAre(Example{1000, 0, 9}));
}

TEST(FeatureStatisticsTest, NeitherOrderNorPartsChangeWhatIsKept) {
  const SparseCorpus corpus = RandomCorpus(600, 40, 3);
  const auto options = Options(40, 6, true);
  FeatureStatistics straight(options);
  Add(corpus, 0, 600, &straight);

  // Resumed in the middle of a row: the same bytes.
  FeatureStatistics before(options), resumed(options);
  Add(corpus, 0, 203, &before);
  CopyThroughState(before, &resumed);
  Add(corpus, 203, 397, &resumed);
  EXPECT_EQ(StateBytes(resumed), StateBytes(straight));

  // Three parts, merged in both orders.
  FeatureStatistics a(options), b(options), c(options);
  Add(corpus, 0, 100, &a);
  Add(corpus, 100, 333, &b);
  Add(corpus, 433, 167, &c);
  FeatureStatistics forward(options), backward(options);
  for (const auto* part : {&a, &b, &c}) {
    ASSERT_TRUE(forward.Merge(*part).ok());
  }
  for (const auto* part : {&c, &b, &a}) {
    ASSERT_TRUE(backward.Merge(*part).ok());
  }
  for (const FeatureStatistics* merged : {&forward, &backward}) {
    EXPECT_EQ(merged->tokens(), 600);
    for (int64_t latent = 0; latent < 40; ++latent) {
      EXPECT_EQ(merged->Count(latent), straight.Count(latent));
      EXPECT_EQ(merged->Largest(latent), straight.Largest(latent));
      EXPECT_EQ(merged->Histogram(latent), straight.Histogram(latent));
      EXPECT_EQ(merged->Top(latent), straight.Top(latent));
      EXPECT_EQ(merged->OfIntervals(latent, 5, 3),
                straight.OfIntervals(latent, 5, 3));
      for (int p = 1; p <= 4; ++p) {
        EXPECT_NEAR(merged->PowerSum(latent, p), straight.PowerSum(latent, p),
                    1e-12 * straight.PowerSum(latent, p));
      }
    }
  }
}

TEST(FeatureStatisticsTest, OtherOptionsAreNeitherMergedNorRestored) {
  FeatureStatistics mine(Options(4, 2, true));
  for (const auto& options :
       {Options(5, 2, true), Options(4, 3, true), Options(4, 2, false)}) {
    FeatureStatistics other(options);
    EXPECT_EQ(mine.Merge(other).code(), absl::StatusCode::kInvalidArgument);
    SaveState(other);
    FeatureStatistics zero(Options(4, 2, true));
    EXPECT_EQ(RestoreState(&zero).code(), absl::StatusCode::kDataLoss);
  }
}

TEST(FeatureStatisticsTest, DamagedBytesAreRefusedOrHarmless) {
  const SparseCorpus corpus = RandomCorpus(100, 6, 4);
  const auto options = Options(6, 3, true);
  FeatureStatistics statistics(options);
  Add(corpus, 0, 100, &statistics);
  const std::string body = StateBody(statistics);
  FeatureStatistics cut(options), longer(options);
  EXPECT_EQ(RestoreBytes(body.substr(0, body.size() - 1), &cut).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(RestoreBytes(body + "x", &longer).code(),
            absl::StatusCode::kDataLoss);
  int refused = 0;
  for (size_t at = 0; at < body.size(); at += 211) {
    std::string damaged = body;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x80);
    FeatureStatistics zero(options);
    const absl::Status status = RestoreBytes(damaged, &zero);
    if (status.ok()) {  // a number that cannot be told from another
      Add(corpus, 0, 100, &zero);
      for (int64_t latent = 0; latent < 6; ++latent) {
        zero.Top(latent);
        zero.OfIntervals(latent, 5, 5);
      }
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      ++refused;
    }
  }
  EXPECT_GT(refused, 5);
}

TEST(FeatureStatisticsTest, BadOptionsAreNamed) {
  auto options = Options(0, 2, true);
  EXPECT_THAT(CheckOptions(options).message(), HasSubstr("latents is 0"));
  options = Options(4, 1001, true);
  EXPECT_THAT(CheckOptions(options).message(),
              HasSubstr("top_k is 1001; accepted: 0 to 1000"));
  options = Options(4, 2, true);
  options.per_stratum = -1;
  EXPECT_THAT(CheckOptions(options).message(), HasSubstr("per_stratum is -1"));
  options = Options(4, 2, true);
  options.bins.octaves = 200;
  EXPECT_THAT(CheckOptions(options).message(), HasSubstr("200 octaves"));
  EXPECT_TRUE(CheckOptions(Options(4, 2, true)).ok());
}

TEST(FeatureStatisticsTest, TheMemoryIsAsStated) {
  // 16,384 latents, 20 contexts, 5 examples a stratum: below 60 MB.
  FeatureStatisticsOptions options;
  options.latents = 16'384;
  EXPECT_LT(FeatureStatistics::Bytes(options), 60e6);
  EXPECT_GT(FeatureStatistics::Bytes(options), 16'384 * (20 + 55) * 16);
}

}  // namespace
}  // namespace cupola::analysis
