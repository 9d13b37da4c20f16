#include "server/analysis/feature_similarity.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/analysis/sparse_corpus.h"
#include "tests/analysis/state_copy.h"

namespace cupola::analysis {
namespace {

constexpr int64_t kA = 40, kB = 23, kTokens = 700;

struct Corpora {
  SparseCorpus a = RandomCorpus(kTokens, kA, 1),
               b = RandomCorpus(kTokens, kB, 2);
};

void Add(const Corpora& corpora, int64_t first, int64_t count,
         FeatureSimilarity* similarity) {
  std::vector<int64_t> a, b;
  const absl::Status status = similarity->Add(corpora.a.View(first, count, &a),
                                              corpora.b.View(first, count, &b));
  ASSERT_TRUE(status.ok()) << status;
}

// Dense, in float64, from the definition.
at::Tensor Dense(const SparseCorpus& corpus) {
  at::Tensor dense = at::zeros({corpus.tokens(), corpus.latents}, at::kDouble);
  auto at = dense.accessor<double, 2>();
  for (int64_t t = 0; t < corpus.tokens(); ++t) {
    for (int64_t i = corpus.indptr[t]; i < corpus.indptr[t + 1]; ++i) {
      at[t][corpus.indices[i]] = corpus.values[i];
    }
  }
  return dense;
}

at::Tensor NaiveCosines(const Corpora& corpora) {
  at::Tensor a = Dense(corpora.a), b = Dense(corpora.b);
  const auto norms = [](const at::Tensor& x) {
    return x.square().sum(0, /*keepdim=*/true).sqrt().clamp_min(1e-300);
  };
  return (a / norms(a)).t().matmul(b / norms(b));
}

TEST(FeatureSimilarityTest, IsTheCosineOfTheActivations) {
  const Corpora corpora;
  for (bool float64 : {false, true}) {
    FeatureSimilarity similarity({kA, kB, float64});
    Add(corpora, 0, 300, &similarity);
    Add(corpora, 300, 400, &similarity);
    similarity.Finish();
    EXPECT_EQ(similarity.tokens(), kTokens);
    const at::Tensor cosines = similarity.Cosines();
    const at::Tensor naive = NaiveCosines(corpora);
    EXPECT_LT((cosines - naive).abs().max().item<double>(), 1e-6);
    EXPECT_GT(naive.max().item<double>(), 0.1);
    EXPECT_TRUE(similarity.DeadOfA()[kA - 1]);
    EXPECT_FALSE(similarity.DeadOfB()[0]);
    EXPECT_EQ(cosines[kA - 1].abs().sum().item<double>(), 0);
    const auto alike = similarity.MostAlike({3, 4, 5, 6, 7}, 4);
    const auto [values, indices] = cosines.narrow(0, 3, 5).topk(4);
    EXPECT_TRUE(at::equal(alike.values, values));
    EXPECT_TRUE(at::equal(alike.indices, indices));
    // Latents in any order, and more than once.
    const at::Tensor some = similarity.Cosines({9, 0, 9});
    EXPECT_TRUE(at::equal(some, cosines.index({at::tensor({9, 0, 9})})));
  }
}

// The row of products of a latent that fires often is summed in scratch, and
// goes to the total every 512 tokens.
TEST(FeatureSimilarityTest, LongRunsOfADenseLatentStayExact) {
  SparseCorpus a, b;
  a.latents = 2;
  b.latents = 3;
  for (int t = 0; t < 10'000; ++t) {
    a.AddToken(t, 0, {0, 1}, {1.1f, 1});
    b.AddToken(t, 0, {1}, {0.3f});
  }
  FeatureSimilarity similarity({2, 3, false});
  std::vector<int64_t> first, second;
  ASSERT_TRUE(
      similarity.Add(a.View(0, 10'000, &first), b.View(0, 10'000, &second))
          .ok());
  similarity.Finish();
  EXPECT_NEAR(similarity.Cosines({0})[0][1].item<double>(), 1, 1e-5);
  EXPECT_NEAR(similarity.NormsOfA()[1], 100, 1e-9);
}

TEST(FeatureSimilarityTest, AResumedOneHasTheSameBits) {
  const Corpora corpora;
  for (bool float64 : {false, true}) {
    const FeatureSimilarityOptions options{kA, kB, float64};
    FeatureSimilarity straight(options), before(options), resumed(options);
    Add(corpora, 0, 250, &straight);
    Add(corpora, 250, 450, &straight);
    Add(corpora, 0, 250, &before);
    CopyThroughState(before, &resumed);
    Add(corpora, 250, 450, &resumed);
    EXPECT_EQ(StateBytes(resumed), StateBytes(straight));
    straight.Finish();
    resumed.Finish();
    EXPECT_TRUE(at::equal(resumed.Cosines(), straight.Cosines()));
  }
}

TEST(FeatureSimilarityTest, PartsMergeToTheWhole) {
  const Corpora corpora;
  const FeatureSimilarityOptions options{kA, kB, false};
  FeatureSimilarity straight(options), merged(options), part(options);
  Add(corpora, 0, 700, &straight);
  Add(corpora, 0, 123, &merged);
  Add(corpora, 123, 577, &part);
  part.Finish();
  ASSERT_TRUE(merged.Merge(part).ok());
  merged.Finish();
  straight.Finish();
  EXPECT_EQ(merged.tokens(), kTokens);
  EXPECT_TRUE(at::allclose(merged.Cosines(), straight.Cosines(), 1e-6, 1e-9));
  EXPECT_EQ(merged.Merge(FeatureSimilarity({kA, kB, true})).code(),
            absl::StatusCode::kInvalidArgument);
}

// Where single precision would long have stopped counting on. A block is worked
// off in the middle of a run, and parts are merged that worked theirs off
// elsewhere.
TEST(FeatureSimilarityTest, Float64HoldsForMillionsOfTokens) {
  constexpr int kTimes = 2'000'000;
  SparseCorpus a, b;
  a.latents = 2;
  b.latents = 600;  // a latent's products are few against the row
  for (int t = 0; t < kTimes; ++t) {
    a.AddToken(t, 0, {0}, {0.1f});
    b.AddToken(t, 0, {t % 2 == 0 ? 599 : 7}, {0.7f});
  }
  const auto add = [&](int64_t first, int64_t count, FeatureSimilarity* to) {
    std::vector<int64_t> one, two;
    ASSERT_TRUE(
        to->Add(a.View(first, count, &one), b.View(first, count, &two)).ok());
  };
  const FeatureSimilarityOptions options{2, 600, true};
  FeatureSimilarity whole(options), part(options, 300), rest(options, 77);
  add(0, kTimes, &whole);
  for (int64_t at = 0; at < kTimes; at += 1000) {
    add(at, 1000, at < 600'000 ? &part : &rest);
  }
  ASSERT_TRUE(part.Merge(rest).ok());
  for (FeatureSimilarity* one : {&whole, &part}) {
    one->Finish();
    // Half of the tokens have each: 1 / sqrt(2).
    const at::Tensor cosines = one->Cosines({0});
    EXPECT_NEAR(cosines[0][599].item<double>(), std::sqrt(0.5), 2e-6);
    EXPECT_NEAR(cosines[0][7].item<double>(), std::sqrt(0.5), 2e-6);
    EXPECT_EQ(cosines[0][8].item<double>(), 0);
  }
}

TEST(FeatureSimilarityTest, WhereBlocksEndChangesNothing) {
  const Corpora corpora;
  const FeatureSimilarityOptions options{kA, kB, true};
  FeatureSimilarity whole(options);
  Add(corpora, 0, kTokens, &whole);
  whole.Finish();
  for (const int64_t block : {1, 60, 500}) {
    FeatureSimilarity straight(options, block), before(options, block),
        resumed(options, block), other(options, 2 * block + 1);
    for (int64_t at = 0; at < kTokens; at += 35) {
      Add(corpora, at, 35, &straight);
      Add(corpora, at, 35, at < 280 ? &before : &other);
    }
    CopyThroughState(before, &resumed);  // between two blocks
    for (int64_t at = 280; at < kTokens; at += 35) {
      Add(corpora, at, 35, &resumed);
    }
    EXPECT_EQ(StateBytes(resumed), StateBytes(straight));
    ASSERT_TRUE(before.Merge(other).ok());
    for (FeatureSimilarity* one : {&straight, &before}) {
      one->Finish();
      EXPECT_TRUE(at::allclose(one->Cosines(), whole.Cosines(), 1e-6, 1e-9));
    }
  }
}

TEST(FeatureSimilarityTest, NumbersThatAreNoneAreRefused) {
  const Corpora corpora;
  const FeatureSimilarityOptions options{kA, kB, false};
  FeatureSimilarity similarity(options);
  Add(corpora, 0, 50, &similarity);
  similarity.Finish();
  const std::string body = StateBody(similarity);
  const size_t counts = 4 * sizeof(int64_t),
               squares = counts + kA * sizeof(int64_t),
               products = squares + kA * sizeof(double) +
                          kB * (sizeof(int64_t) + sizeof(double)) +
                          sizeof(int64_t);
  const auto with = [&](size_t at, auto value) {
    std::string damaged = body;
    std::memcpy(damaged.data() + at, &value, sizeof(value));
    FeatureSimilarity zero(options);
    return RestoreBytes(damaged, &zero).code();
  };
  EXPECT_EQ(with(products, 0.0f), absl::StatusCode::kOk);
  EXPECT_EQ(with(products, std::nanf("")), absl::StatusCode::kDataLoss);
  EXPECT_EQ(with(squares, std::nan("")), absl::StatusCode::kDataLoss);
  EXPECT_EQ(with(counts, int64_t{51}), absl::StatusCode::kDataLoss);
}

TEST(FeatureSimilarityTest, RefusesOtherTokensAndDamage) {
  const Corpora corpora;
  FeatureSimilarity similarity({kA, kB, false});
  std::vector<int64_t> a, b;
  EXPECT_EQ(
      similarity.Add(corpora.a.View(0, 3, &a), corpora.b.View(0, 4, &b)).code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(similarity.tokens(), 0);
  Add(corpora, 0, 50, &similarity);
  const std::string body = StateBody(similarity);
  FeatureSimilarity cut({kA, kB, false}), other({kA, kB + 1, false});
  EXPECT_EQ(RestoreBytes(body.substr(0, body.size() - 9), &cut).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(RestoreBytes(body, &other).code(), absl::StatusCode::kDataLoss);
  // The number of tokens, whose sums would overflow.
  for (const int64_t tokens :
       {int64_t{-1}, (int64_t{1} << 53) + 1, INT64_MAX}) {
    std::string told = body;
    told.replace(3 * sizeof(int64_t), sizeof(tokens),
                 reinterpret_cast<const char*>(&tokens), sizeof(tokens));
    FeatureSimilarity zero({kA, kB, false});
    EXPECT_EQ(RestoreBytes(told, &zero).code(), absl::StatusCode::kDataLoss);
  }
  // The blocks of tokens at the end: lengths, orders and latents.
  int refused = 0;
  for (size_t at = body.size() - 2000; at < body.size(); at += 67) {
    std::string damaged = body;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x81);
    FeatureSimilarity zero({kA, kB, false});
    const absl::Status status = RestoreBytes(damaged, &zero);
    if (status.ok()) {
      zero.Finish();
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      ++refused;
    }
  }
  EXPECT_GT(refused, 15);  // the rest are other values above 0
}

}  // namespace
}  // namespace cupola::analysis
