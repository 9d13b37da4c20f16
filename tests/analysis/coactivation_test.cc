#include "server/analysis/coactivation.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/analysis/pair_sample.h"
#include "tests/analysis/sparse_corpus.h"
#include "tests/analysis/state_copy.h"

namespace cupola::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kLatents = 29, kTokens = 900;

absl::Status Never() { return absl::OkStatus(); }

void Add(const SparseCorpus& corpus, int64_t first, int64_t count,
         Coactivation* pairs) {
  std::vector<int64_t> indptr;
  const absl::Status status = pairs->Add(corpus.View(first, count, &indptr));
  ASSERT_TRUE(status.ok()) << status;
}

void Add(const SparseCorpus& corpus, int64_t first, int64_t count,
         PairSample* pairs) {
  std::vector<int64_t> indptr;
  pairs->Add(corpus.View(first, count, &indptr), corpus.Places(first));
}

// By the definitions, token by token, in float64.
PairNumbers Naive(const SparseCorpus& corpus, int32_t a, int32_t b) {
  PairNumbers numbers;
  numbers.tokens = corpus.tokens();
  for (int64_t t = 0; t < corpus.tokens(); ++t) {
    const double x = corpus.At(t, a), y = corpus.At(t, b);
    numbers.a_count += x > 0;
    numbers.b_count += y > 0;
    numbers.both += x > 0 && y > 0;
    numbers.a_sum += x;
    numbers.b_sum += y;
    numbers.a_squares += x * x;
    numbers.b_squares += y * y;
    numbers.products += x * y;
  }
  return numbers;
}

TEST(PairMeasuresTest, AreTheDefinitions) {
  // 10 tokens; a at 4, b at 5, both at 3.
  PairNumbers numbers;
  numbers.tokens = 10;
  numbers.a_count = 4;
  numbers.b_count = 5;
  numbers.both = 3;
  EXPECT_EQ(MeasureOf(PairMeasure::kCount, numbers), 3);
  EXPECT_DOUBLE_EQ(MeasureOf(PairMeasure::kProbability, numbers), 0.3);
  EXPECT_DOUBLE_EQ(MeasureOf(PairMeasure::kUpstreamCorrelation, numbers),
                   0.1 / std::sqrt(0.4 * 0.6 * 0.5));
  EXPECT_DOUBLE_EQ(MeasureOf(PairMeasure::kPhi, numbers),
                   0.1 / std::sqrt(0.4 * 0.6 * 0.5 * 0.5));
  EXPECT_DOUBLE_EQ(MeasureOf(PairMeasure::kJaccard, numbers), 0.5);
  for (auto measure :
       {PairMeasure::kProbability, PairMeasure::kUpstreamCorrelation,
        PairMeasure::kPhi, PairMeasure::kPearson, PairMeasure::kJaccard,
        PairMeasure::kCosine}) {
    EXPECT_EQ(MeasureOf(measure, PairNumbers()), 0);
  }
}

// The correlation coefficient from centred vectors, as a textbook has it.
double CentredCorrelation(const SparseCorpus& corpus, int32_t a, int32_t b) {
  const PairNumbers n = Naive(corpus, a, b);
  const double mean_a = n.a_sum / n.tokens, mean_b = n.b_sum / n.tokens;
  double ab = 0, aa = 0, bb = 0;
  for (int64_t t = 0; t < corpus.tokens(); ++t) {
    const double x = corpus.At(t, a) - mean_a, y = corpus.At(t, b) - mean_b;
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

TEST(CoactivationTest, AgreesWithPlainCountsOfEveryPair) {
  const SparseCorpus corpus = RandomCorpus(kTokens, kLatents, 5);
  for (bool products : {true, false}) {
    Coactivation pairs({kLatents, products});
    Add(corpus, 0, 400, &pairs);
    Add(corpus, 400, 500, &pairs);
    pairs.Finish();
    EXPECT_EQ(pairs.tokens(), kTokens);
    for (int32_t a = 0; a < kLatents; ++a) {
      const auto pearson = pairs.Row(PairMeasure::kPearson, a);
      for (int32_t b = 0; b < kLatents; ++b) {
        const PairNumbers naive = Naive(corpus, a, b), of = pairs.Of(a, b);
        EXPECT_EQ(of.both, naive.both) << a << " " << b;
        EXPECT_EQ(of.a_count, naive.a_count);
        EXPECT_NEAR(of.b_squares, naive.b_squares, 1e-9);
        EXPECT_NEAR(of.products, products ? naive.products : 0,
                    1e-12 * (1 + naive.products));
        if (products && a != b) {
          EXPECT_NEAR(pearson[b], CentredCorrelation(corpus, a, b), 1e-9);
        }
      }
    }
  }
}

TEST(CoactivationTest, TheLargestPartnersComeFirst) {
  SparseCorpus corpus;
  corpus.latents = 5;
  corpus.AddToken(0, 0, {0, 1, 3}, {1, 1, 1});
  corpus.AddToken(0, 1, {0, 3}, {1, 1});
  corpus.AddToken(0, 2, {0, 2}, {1, 1});
  Coactivation pairs({5, false});
  Add(corpus, 0, 3, &pairs);
  pairs.Finish();
  EXPECT_THAT(pairs.Top(PairMeasure::kCount, 0, 9),
              ElementsAre(Partner{3, 2}, Partner{1, 1}, Partner{2, 1}));
  EXPECT_THAT(pairs.Top(PairMeasure::kCount, 0, 1), ElementsAre(Partner{3, 2}));
  EXPECT_THAT(pairs.Top(PairMeasure::kCount, 3, 9),
              ElementsAre(Partner{0, 2}, Partner{1, 1}));
  EXPECT_THAT(pairs.Top(PairMeasure::kCount, 4, 9), IsEmpty());
}

// Through scratch, as a latent's many tokens go.
TEST(CoactivationTest, LongRunsCountExactly) {
  SparseCorpus corpus;
  corpus.latents = 3;
  for (int t = 0; t < 9000; ++t) corpus.AddToken(t, 0, {0, 2}, {0.5f, 3});
  Coactivation pairs({3, true});
  Add(corpus, 0, 9000, &pairs);
  pairs.Finish();
  EXPECT_EQ(pairs.Of(0, 2).both, 9000);
  EXPECT_EQ(pairs.Of(2, 0).products, 13'500);
  EXPECT_EQ(pairs.Of(0, 1).both, 0);
}

// A float32 sum stops growing at 2^24: terms of 1 are then lost in it.
TEST(CoactivationTest, LongSumsLoseNothing) {
  SparseCorpus large, small;
  large.latents = small.latents = 2;
  large.AddToken(0, 0, {0, 1}, {1 << 12, 1 << 12});
  for (int t = 0; t < 5000; ++t) small.AddToken(1, t, {0, 1}, {1, 1});
  Coactivation pairs({2, true});
  Add(large, 0, 1, &pairs);
  pairs.Finish();
  Add(small, 0, 5000, &pairs);
  pairs.Finish();
  EXPECT_EQ(pairs.Of(0, 1).products, (1 << 24) + 5000);
}

TEST(CoactivationTest, ResumedAndMergedEqualStraight) {
  const SparseCorpus corpus = RandomCorpus(kTokens, kLatents, 6);
  const CoactivationOptions options{kLatents, true};
  Coactivation straight(options), before(options), resumed(options);
  Add(corpus, 0, 300, &straight);
  Add(corpus, 300, 600, &straight);
  Add(corpus, 0, 300, &before);
  CopyThroughState(before, &resumed);
  Add(corpus, 300, 600, &resumed);
  EXPECT_EQ(StateBytes(resumed), StateBytes(straight));

  Coactivation second(options);
  Add(corpus, 300, 600, &second);
  ASSERT_TRUE(before.Merge(second).ok());
  before.Finish();
  straight.Finish();
  EXPECT_EQ(before.tokens(), kTokens);
  for (int64_t a = 0; a < kLatents; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      EXPECT_EQ(before.Of(a, b).both, straight.Of(a, b).both);
      EXPECT_NEAR(before.Of(a, b).products, straight.Of(a, b).products,
                  1e-6 * straight.Of(a, b).products);
    }
  }
  EXPECT_EQ(before.Merge(Coactivation({kLatents, false})).code(),
            absl::StatusCode::kInvalidArgument);
  const std::string body = StateBody(straight);
  Coactivation cut(options), other({kLatents + 1, true});
  EXPECT_EQ(RestoreBytes(body.substr(0, body.size() / 2), &cut).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(RestoreBytes(body, &other).code(), absl::StatusCode::kDataLoss);
}

TEST(PairSampleTest, IsExactWhereNothingWasLeftOut) {
  const SparseCorpus corpus = RandomCorpus(200, kLatents, 7);
  // As many as the most active latent has: two of them together have more.
  int64_t most = 1;
  for (int32_t a = 1; a < kLatents; ++a) {
    most = std::max(most, Naive(corpus, a, 0).a_count);
  }
  most = std::max(most, Naive(corpus, 0, 1).a_count);
  PairSample pairs({kLatents, most});
  Add(corpus, 0, 200, &pairs);
  for (int32_t a = 0; a < kLatents; ++a) {
    for (int32_t b = 0; b < kLatents; ++b) {
      EXPECT_EQ(pairs.Of(a, b).both, Naive(corpus, a, b).both);
    }
  }
  Coactivation exact({kLatents, false});
  Add(corpus, 0, 200, &exact);
  exact.Finish();
  const auto top = pairs.Top(PairMeasure::kPhi, {0, 7, 28}, 6, Never);
  ASSERT_TRUE(top.ok()) << top.status();
  EXPECT_EQ((*top)[0], exact.Top(PairMeasure::kPhi, 0, 6));
  EXPECT_EQ((*top)[1], exact.Top(PairMeasure::kPhi, 7, 6));
  EXPECT_THAT((*top)[2], IsEmpty());
}

// More partners than are kept beside those that are answered, and more asked
// about than one pass over the samples looks up.
TEST(PairSampleTest, TheLargestPartnersAreThoseOfAllPairs) {
  constexpr int64_t kMany = 200, kSample = 3000;
  const SparseCorpus corpus = RandomCorpus(700, kMany, 11);
  PairSample pairs({kMany, kSample});
  Add(corpus, 0, 700, &pairs);
  std::vector<int64_t> all;
  for (int64_t latent = kMany - 1; latent >= 0; --latent) all.push_back(latent);
  int asked = 0;
  const auto count = [&asked] {
    ++asked;
    return absl::OkStatus();
  };
  const auto top = pairs.Top(PairMeasure::kJaccard, all, 3, count);
  ASSERT_TRUE(top.ok()) << top.status();
  EXPECT_GE(asked, 3 * 4);  // passes, latents by 64
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<Partner> partners;
    for (int64_t other = 0; other < kMany; ++other) {
      const PairNumbers numbers = pairs.Of(all[i], other);
      if (other == all[i] || numbers.both == 0) continue;
      partners.push_back({other, MeasureOf(PairMeasure::kJaccard, numbers)});
    }
    EXPECT_EQ((*top)[i], LargestPartners(partners, 3)) << all[i];
  }
  const auto give_up = [] { return absl::CancelledError("given up"); };
  EXPECT_TRUE(absl::IsCancelled(
      pairs.Top(PairMeasure::kJaccard, {0}, 3, give_up).status()));
}

// What was merged from elsewhere may be any bytes.
TEST(CoactivationTest, CountsThatAreNoneAreDataLoss) {
  const auto restore = [](int64_t tokens, uint32_t both) {
    std::string body;
    const auto append = [&body](auto value) {
      body.append(reinterpret_cast<const char*>(&value), sizeof(value));
    };
    append(int64_t{2}), append(int64_t{0}), append(tokens);
    append(int64_t{5}), append(int64_t{3});   // counts
    for (int i = 0; i < 4; ++i) append(1.0);  // sums, squares
    append(both);
    append(int64_t{0}), append(int64_t{0});  // an empty block
    Coactivation pairs({2, false});
    return RestoreBytes(body, &pairs);
  };
  EXPECT_TRUE(restore(5, 3).ok()) << restore(5, 3);
  EXPECT_TRUE(absl::IsDataLoss(restore(5, 4)));
  EXPECT_TRUE(absl::IsDataLoss(restore(-1, 0)));
  EXPECT_TRUE(absl::IsDataLoss(restore(Coactivation::kMaxTokens + 1, 3)));
  EXPECT_TRUE(absl::IsDataLoss(restore(INT64_MAX, 3)));
}

TEST(PairSampleTest, EstimatesAreWithinTheirError) {
  const SparseCorpus corpus = RandomCorpus(6000, kLatents, 8);
  PairSample pairs({kLatents, 200});
  Add(corpus, 0, 6000, &pairs);
  int outside = 0, looked = 0;
  for (int32_t a = 0; a < kLatents; ++a) {
    for (int32_t b = 0; b < a; ++b) {
      const double exact =
          MeasureOf(PairMeasure::kJaccard, Naive(corpus, a, b));
      const double error = std::sqrt(exact * (1 - exact) / 200);
      const double estimate = MeasureOf(PairMeasure::kJaccard, pairs.Of(a, b));
      outside += std::fabs(estimate - exact) > 3 * error + 1e-3;
      ++looked;
    }
  }
  EXPECT_LT(outside, looked / 50);
}

TEST(PairSampleTest, NeitherOrderNorPartsChangeIt) {
  const SparseCorpus corpus = RandomCorpus(kTokens, kLatents, 9);
  const PairSampleOptions options{kLatents, 20};
  PairSample straight(options), a(options), b(options), resumed(options);
  Add(corpus, 0, kTokens, &straight);
  Add(corpus, 0, 333, &a);
  Add(corpus, 333, kTokens - 333, &b);
  CopyThroughState(a, &resumed);
  Add(corpus, 333, kTokens - 333, &resumed);
  EXPECT_EQ(StateBytes(resumed), StateBytes(straight));
  ASSERT_TRUE(b.Merge(a).ok());
  EXPECT_EQ(StateBytes(b), StateBytes(straight));
  EXPECT_EQ(a.Merge(PairSample({kLatents, 21})).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      straight.Top(PairMeasure::kPearson, {0}, 1, Never).status().message(),
      HasSubstr("accepted: those of counts"));
  std::string body = StateBody(straight);
  body[body.size() - 16] ^= 0x55;
  PairSample damaged(options), cut(options);
  EXPECT_EQ(RestoreBytes(body.substr(0, 100), &cut).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(RestoreBytes(body, &damaged).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace cupola::analysis
