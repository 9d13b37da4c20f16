#include "server/engine/batch_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Nobody has been given anything before.
std::vector<size_t> Form(const std::vector<QueuedPart>& queue,
                         int64_t token_budget) {
  return FormBatch(queue, {.tokens = token_budget},
                   [](uint64_t) { return 0.0; });
}

TEST(FormBatch, OfNothingIsEmpty) { EXPECT_THAT(Form({}, 100), IsEmpty()); }

TEST(FormBatch, TakesTheOldestWhateverItsSize) {
  EXPECT_THAT(Form({{1, 500}, {1, 10}}, 100), ElementsAre(0));
}

TEST(FormBatch, FillsTheBudgetWithTheSameGroup) {
  EXPECT_THAT(Form({{1, 30}, {2, 30}, {1, 30}, {1, 30}, {1, 30}}, 100),
              ElementsAre(0, 2, 3));
}

TEST(FormBatch, CountsPaddedTokens) {
  // 2 x 40 padded tokens fit into 80, 3 x 40 do not.
  EXPECT_THAT(Form({{1, 40}, {1, 36}, {1, 36}}, 80), ElementsAre(0, 1));
}

TEST(FormBatch, AnOddLengthDoesNotCloseTheBatch) {
  // 5 tokens beside 40 would waste 35 of 80.
  EXPECT_THAT(Form({{1, 40}, {1, 5}, {1, 40}}, 1000), ElementsAre(0, 2));
}

TEST(FormBatch, ALongerPartMayJoinWhileLittleIsWasted) {
  EXPECT_THAT(Form({{1, 40}, {1, 50}}, 1000), ElementsAre(0, 1));
  EXPECT_THAT(Form({{1, 40}, {1, 100}}, 1000), ElementsAre(0));
}

TEST(FormBatch, AJobsPartsComeWhenThereAreNoOthers) {
  EXPECT_THAT(Form({{1, 10, true}, {2, 10}, {1, 10, true}, {2, 10}}, 100),
              ElementsAre(1, 3));
  EXPECT_THAT(Form({{1, 10, true}, {3, 10, true}, {1, 10, true}}, 100),
              ElementsAre(0, 2));
}

QueuedPart Of(uint64_t client, int64_t tokens, uint64_t row = 0) {
  QueuedPart part;
  part.group = 1;
  part.tokens = tokens;
  part.client = client;
  part.row = row;
  part.seconds = static_cast<double>(tokens);
  return part;
}

TEST(FormBatch, BeginsWithTheClientWhoHasHadTheLeast) {
  const auto given = [](uint64_t client) { return client == 7 ? 50.0 : 10.0; };
  EXPECT_THAT(
      FormBatch({Of(7, 100), Of(8, 100), Of(8, 100)}, {.tokens = 100}, given),
      ElementsAre(1));
}

TEST(FormBatch, ClientsTakeTurnsWithinABatch) {
  EXPECT_THAT(Form({Of(7, 10), Of(7, 10), Of(7, 10), Of(8, 10), Of(8, 10)}, 40),
              ElementsAre(0, 1, 3, 4));
  // Who is ahead waits until the others have caught up.
  const auto given = [](uint64_t client) { return client == 7 ? 20.0 : 0.0; };
  EXPECT_THAT(FormBatch({Of(7, 10), Of(7, 10), Of(8, 10), Of(8, 10), Of(8, 10)},
                        {.tokens = 30}, given),
              ElementsAre(0, 2, 3));
}

TEST(FormBatch, EndsWhenItWouldTakeTooLong) {
  const auto none = [](uint64_t) { return 0.0; };
  const std::vector<QueuedPart> queue = {Of(1, 40), Of(1, 40), Of(1, 40)};
  EXPECT_THAT(FormBatch(queue, {.tokens = 1000, .seconds = 80}, none),
              ElementsAre(0, 1));
  // Whatever comes first is taken.
  EXPECT_THAT(FormBatch(queue, {.tokens = 1000, .seconds = 1}, none),
              ElementsAre(0));
}

TEST(FormBatch, TheSameTokensTakeOneRow) {
  // Three questions about one prompt, and one about another.
  EXPECT_THAT(
      Form({Of(1, 40, 5), Of(1, 40, 5), Of(1, 40, 9), Of(1, 40, 5)}, 80),
      ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(
      Form({Of(1, 40, 5), Of(1, 40, 5), Of(1, 40, 9), Of(1, 40, 5)}, 40),
      ElementsAre(0, 1, 3));
}

}  // namespace
}  // namespace cupola::engine
