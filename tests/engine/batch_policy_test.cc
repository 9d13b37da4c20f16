#include "server/engine/batch_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(FormBatch, OfNothingIsEmpty) {
  EXPECT_THAT(FormBatch({}, 100), IsEmpty());
}

TEST(FormBatch, TakesTheOldestWhateverItsSize) {
  EXPECT_THAT(FormBatch({{1, 500}, {1, 10}}, 100), ElementsAre(0));
}

TEST(FormBatch, FillsTheBudgetWithTheSameGroup) {
  EXPECT_THAT(FormBatch({{1, 30}, {2, 30}, {1, 30}, {1, 30}, {1, 30}}, 100),
              ElementsAre(0, 2, 3));
}

TEST(FormBatch, CountsPaddedTokens) {
  // 2 x 40 padded tokens fit into 80, 3 x 40 do not.
  EXPECT_THAT(FormBatch({{1, 40}, {1, 36}, {1, 36}}, 80), ElementsAre(0, 1));
}

TEST(FormBatch, AnOddLengthDoesNotCloseTheBatch) {
  // 5 tokens beside 40 would waste 35 of 80.
  EXPECT_THAT(FormBatch({{1, 40}, {1, 5}, {1, 40}}, 1000), ElementsAre(0, 2));
}

TEST(FormBatch, ALongerPartMayJoinWhileLittleIsWasted) {
  EXPECT_THAT(FormBatch({{1, 40}, {1, 50}}, 1000), ElementsAre(0, 1));
  EXPECT_THAT(FormBatch({{1, 40}, {1, 100}}, 1000), ElementsAre(0));
}

TEST(FormBatch, AJobsPartsComeWhenThereAreNoOthers) {
  EXPECT_THAT(FormBatch({{1, 10, true}, {2, 10}, {1, 10, true}, {2, 10}}, 100),
              ElementsAre(1, 3));
  EXPECT_THAT(FormBatch({{1, 10, true}, {3, 10, true}, {1, 10, true}}, 100),
              ElementsAre(0, 2));
}

}  // namespace
}  // namespace cupola::engine
