#include "server/engine/admission.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::HasSubstr;

RequestContext Of(const std::string& client,
                  absl::Time deadline = absl::InfiniteFuture()) {
  RequestContext context;
  context.client = client;
  context.deadline = deadline;
  return context;
}

TEST(Admission, CountsWhatIsInFlight) {
  Admission admission({.budget_bytes = 1000});
  {
    auto one = admission.Admit({.bytes = 400}, Of("a"), absl::Now());
    auto two = admission.Admit({.bytes = 600}, Of("b"), absl::Now());
    ASSERT_TRUE(one.ok() && two.ok());
    EXPECT_EQ(admission.bytes_in_flight(), 1000);
    *one = nullptr;
    EXPECT_EQ(admission.bytes_in_flight(), 600);
  }
  EXPECT_EQ(admission.bytes_in_flight(), 0);
}

TEST(Admission, WhatNeverFitsHearsBothNumbersAndNoDelay) {
  Admission admission({.budget_bytes = 1000});
  const auto refused =
      admission.Admit({.bytes = 1001}, Of("a"), absl::Now()).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1001"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1000"));
  EXPECT_FALSE(refused.GetPayload("retry-delay-ms").has_value());
}

TEST(Admission, WhatFitsLaterHearsWhen) {
  Admission admission({.budget_bytes = 1000});
  auto first =
      admission.Admit({.bytes = 800, .seconds = 3}, Of("a"), absl::Now());
  ASSERT_TRUE(first.ok());
  const Estimate next{.bytes = 300, .seconds = 2};
  const auto refused = admission.Admit(next, Of("a"), absl::Now()).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  ASSERT_TRUE(refused.GetPayload("retry-delay-ms").has_value());
  EXPECT_EQ(*refused.GetPayload("retry-delay-ms"), "3000");
  *first = nullptr;
  EXPECT_TRUE(admission.Admit(next, Of("a"), absl::Now()).ok());
}

TEST(Admission, AJobKeepsNobodyOut) {
  Admission admission({.budget_bytes = 1000});
  RequestContext job = Of("job");
  job.bulk = true;
  auto chunk = admission.Admit({.bytes = 900}, job, absl::Now());
  ASSERT_TRUE(chunk.ok());
  EXPECT_EQ(admission.bytes_in_flight(), 900);
  EXPECT_TRUE(admission.Admit({.bytes = 800}, Of("a"), absl::Now()).ok());
  EXPECT_FALSE(admission.Admit({.bytes = 1300}, job, absl::Now()).ok());
}

TEST(Admission, WhatTurnsOutLargerCountsAsMuch) {
  Admission admission({.budget_bytes = 1000});
  auto one = admission.Admit({.bytes = 100}, Of("a"), absl::Now());
  ASSERT_TRUE(one.ok());
  (*one)->AtLeast(950);
  EXPECT_EQ(admission.bytes_in_flight(), 950);
  EXPECT_FALSE(admission.Admit({.bytes = 100}, Of("b"), absl::Now()).ok());
  *one = nullptr;
  EXPECT_EQ(admission.bytes_in_flight(), 0);
}

TEST(Admission, WhatIsComputedStillHoldsItsBytes) {
  Admission admission({.budget_bytes = 1000});
  auto one =
      admission.Admit({.bytes = 700, .seconds = 5}, Of("a"), absl::Now());
  ASSERT_TRUE(one.ok());
  (*one)->ComputingIsDone();
  EXPECT_EQ(admission.Wait("a", 1), 0);
  EXPECT_EQ(admission.bytes_in_flight(), 700);
}

TEST(Admission, PromptsThatWaitAreCountedByClient) {
  Admission admission(
      {.budget_bytes = 1000, .max_parts = 10, .max_parts_per_client = 6});
  auto first = admission.Admit({.parts = 6}, Of("a"), absl::Now());
  ASSERT_TRUE(first.ok());
  const auto refused = admission.Admit({.parts = 1}, Of("a"), absl::Now());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_TRUE(refused.status().GetPayload("retry-delay-ms").has_value());
  EXPECT_TRUE(admission.Admit({.parts = 4}, Of("b"), absl::Now()).ok());
  // What the cache has does not wait.
  EXPECT_TRUE(
      admission.Admit({.parts = 9, .cached = 9}, Of("a"), absl::Now()).ok());
  (*first)->ComputingIsDone();
  EXPECT_TRUE(admission.Admit({.parts = 1}, Of("a"), absl::Now()).ok());
}

TEST(Admission, AFairQueuePutsLittleBeforeASmallRequest) {
  Admission admission({.budget_bytes = 1000});
  auto lab = admission.Admit({.seconds = 100}, Of("lab"), absl::Now());
  EXPECT_DOUBLE_EQ(admission.Wait("lab", 1), 100);
  EXPECT_DOUBLE_EQ(admission.Wait("one", 1), 1);
  auto own = admission.Admit({.seconds = 2}, Of("one"), absl::Now());
  EXPECT_DOUBLE_EQ(admission.Wait("one", 1), 2 + 3);
}

TEST(Admission, ADeadlineThatCannotBeMetIsRefusedAtOnce) {
  Admission admission({.budget_bytes = 1000});
  const absl::Time now = absl::Now();
  const RequestContext hurried = Of("a", now + absl::Seconds(1));
  Estimate estimate{.seconds = 10, .measured = true};
  const auto refused = admission.Admit(estimate, hurried, now).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("10000 ms"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1000 ms"));
  // A guess refuses nobody, and neither does a close call.
  estimate.measured = false;
  EXPECT_TRUE(admission.Admit(estimate, hurried, now).ok());
  estimate = {.seconds = 3, .measured = true};
  EXPECT_TRUE(admission.Admit(estimate, hurried, now).ok());
}

}  // namespace
}  // namespace cupola::engine
