#include "server/analysis/feature_similarities.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/analysis/sparse_corpus.h"
#include "tests/analysis/state_copy.h"

namespace cupola::analysis {
namespace {

constexpr int64_t kA = 40, kTokens = 500;
const std::vector<FeatureSimilarityOptions> kOptions = {
    {kA, 40, false}, {kA, 23, false}, {kA, 55, true}};

absl::Status Never() { return absl::OkStatus(); }

void Add(int64_t first, int64_t count, FeatureSimilarities* similarities) {
  std::vector<SparseCorpus> corpora{RandomCorpus(kTokens, kA, 1)};
  for (size_t i = 0; i < kOptions.size(); ++i) {
    corpora.push_back(RandomCorpus(kTokens, kOptions[i].b_latents, 2 + i));
  }
  std::vector<std::vector<int64_t>> indptrs(corpora.size());
  std::vector<SparseView> others;
  for (size_t i = 1; i < corpora.size(); ++i) {
    others.push_back(corpora[i].View(first, count, &indptrs[i]));
  }
  const absl::Status status =
      similarities->Add(corpora[0].View(first, count, &indptrs[0]), others);
  ASSERT_TRUE(status.ok()) << status;
}

TEST(FeatureSimilaritiesTest, EachIsAnswered) {
  FeatureSimilarities similarities(kOptions);
  Add(0, kTokens, &similarities);
  for (int64_t i = 0; i < similarities.size(); ++i) {
    const at::Tensor cosines = similarities.Finished(i).Cosines();
    const auto assigned = AssignFeatures(cosines, Never);
    ASSERT_TRUE(assigned.ok()) << assigned.status();
    const auto matching =
        similarities.MatchingWith(i, DeadPolicy::kCorrect, Never);
    ASSERT_TRUE(matching.ok()) << matching.status();
    EXPECT_EQ(matching->matched, assigned->matched);
  }
}

TEST(FeatureSimilaritiesTest, PartsAndCopiesAreTheWhole) {
  FeatureSimilarities whole(kOptions), parts(kOptions), later(kOptions);
  Add(0, kTokens, &whole);
  Add(0, 200, &parts);
  Add(200, kTokens - 200, &later);
  FeatureSimilarities copied(kOptions);
  CopyThroughState(later, &copied);
  ASSERT_TRUE(parts.Merge(copied).ok());
  for (int64_t i = 0; i < whole.size(); ++i) {
    EXPECT_LT((whole.Finished(i).Cosines() - parts.Finished(i).Cosines())
                  .abs()
                  .max()
                  .item<double>(),
              1e-6);
  }
  FeatureSimilarities fewer({kOptions[0]});
  EXPECT_EQ(whole.Merge(fewer).code(), absl::StatusCode::kInvalidArgument);
}

TEST(FeatureSimilaritiesTest, ManyAskAtOnceAndSomeGiveUp) {
  FeatureSimilarities similarities(kOptions);
  Add(0, kTokens, &similarities);
  const auto give_up = [] { return absl::CancelledError("given up"); };
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < similarities.size(); ++i) {
        if (t % 4 == 0) {
          // Either somebody has computed it, or it is given up.
          const auto tried =
              similarities.MatchingWith(i, DeadPolicy::kCorrect, give_up);
          EXPECT_TRUE(tried.ok() || absl::IsCancelled(tried.status()));
          continue;
        }
        good += similarities.MatchingWith(i, DeadPolicy::kCorrect, Never).ok();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 6 * similarities.size());
}

TEST(FeatureSimilaritiesTest, AnAssignmentIsGivenUpAndTheNextAskerHasIt) {
  constexpr int64_t kMany = 200;
  const SparseCorpus a = RandomCorpus(kTokens, kMany, 1),
                     b = RandomCorpus(kTokens, kMany, 2);
  FeatureSimilarities similarities({{kMany, kMany, false}});
  std::vector<int64_t> first, second;
  ASSERT_TRUE(
      similarities
          .Add(a.View(0, kTokens, &first), {b.View(0, kTokens, &second)})
          .ok());
  int asked = 0;
  const auto give_up = [&asked] {
    ++asked;
    return absl::CancelledError("given up");
  };
  EXPECT_TRUE(absl::IsCancelled(
      similarities.MatchingWith(0, DeadPolicy::kCorrect, give_up).status()));
  EXPECT_EQ(asked, 1);
  const auto assigned =
      AssignFeatures(similarities.Finished(0).Cosines(), Never);
  const auto matching =
      similarities.MatchingWith(0, DeadPolicy::kCorrect, Never);
  ASSERT_TRUE(assigned.ok() && matching.ok());
  EXPECT_EQ(matching->matched, assigned->matched);
  // What is computed is not computed again.
  EXPECT_TRUE(
      similarities.MatchingWith(0, DeadPolicy::kUpstream, give_up).ok());
  EXPECT_EQ(asked, 1);
}

TEST(FeatureSimilaritiesTest, APolicyThatCannotBeIsRefusedBeforehand) {
  FeatureSimilarities similarities(kOptions);
  Add(0, kTokens, &similarities);
  const auto unasked = [] { return absl::CancelledError("computed"); };
  EXPECT_TRUE(absl::IsInvalidArgument(
      similarities.MatchingWith(1, DeadPolicy::kUpstream, unasked).status()));
}

TEST(FeatureSimilaritiesTest, ItsBytesAreWithOneAssignments) {
  const double each = FeatureSimilarity::Bytes({100, 100, true});
  EXPECT_EQ(FeatureSimilarities::Bytes({{100, 100, true}, {100, 100, true}}),
            2 * each + 100 * 100 * 4);
  EXPECT_EQ(FeatureSimilarities::Bytes({{100, 50, false}}),
            FeatureSimilarity::Bytes({100, 50, false}) + 2 * 100 * 50 * 4);
}

// What was merged from elsewhere may be any bytes.
TEST(FeatureSimilaritiesTest, SumsThatAreNoneAreDataLoss) {
  const std::vector<FeatureSimilarityOptions> one = {{2, 1, true}};
  const auto restore = [&](int64_t count, double square, double product) {
    std::string body;
    const auto append = [&body](auto value) {
      body.append(reinterpret_cast<const char*>(&value), sizeof(value));
    };
    for (const int64_t n : {2, 1, 1, 9}) append(n);
    append(count), append(int64_t{0});
    append(square), append(0.0);
    append(int64_t{3}), append(1.0);
    append(int64_t{1});
    append(product), append(0.0);
    for (int i = 0; i < 4; ++i) append(int64_t{0});  // two empty blocks
    FeatureSimilarities similarities(one);
    return RestoreBytes(body, &similarities);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(restore(9, 2, 1).ok()) << restore(9, 2, 1);
  EXPECT_TRUE(absl::IsDataLoss(restore(10, 2, 1)));
  EXPECT_TRUE(absl::IsDataLoss(restore(-1, 2, 1)));
  EXPECT_TRUE(absl::IsDataLoss(restore(9, -2, 1)));
  EXPECT_TRUE(absl::IsDataLoss(restore(9, nan, 1)));
  EXPECT_TRUE(absl::IsDataLoss(restore(9, 2, inf)));
  EXPECT_TRUE(absl::IsDataLoss(restore(9, 2, nan)));
}

}  // namespace
}  // namespace cupola::analysis
