#include "server/engine/room_queue.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Things of so many bytes that load at once, when there is room.
class RoomQueueTest : public ::testing::Test, private RoomQueue::Slots {
 protected:
  struct Thing {
    int64_t bytes = 0;
    absl::Time loaded_at = absl::InfinitePast(), last_use;
    std::shared_ptr<const int64_t> weights;
    std::weak_ptr<MemoryLedger::Charge> charge;
  };
  struct Answer {
    absl::Notification told;
    absl::Status status;
    std::shared_ptr<const int64_t> weights;  // held
  };

  ~RoomQueueTest() override { queue_.Stop(); }

  void Add(const std::string& name, int64_t bytes) {
    absl::MutexLock lock(&mu_);
    things_[name].bytes = bytes;
  }

  void Ask(const std::string& name, Answer* answer,
           const RequestContext& context = {}, bool evicts = true) {
    RoomQueue::Demand demand;
    Thing* thing;
    {
      absl::MutexLock lock(&mu_);
      thing = &things_.at(name);
      thing->last_use = absl::Now();
    }
    demand.device = "cpu";
    demand.what = name;
    demand.context = context;
    demand.evicts = evicts;
    demand.slots = {thing};
    demand.missing = [thing] {
      return thing->weights == nullptr ? thing->bytes : 0;
    };
    demand.total = [thing] { return thing->bytes; };
    demand.start = [=, this]() -> std::function<void()> {
      if (thing->weights == nullptr) {
        ++loads_;
        auto charge = ledger_->Take("cpu", thing->bytes);
        thing->charge = charge;
        thing->weights =
            Charged(std::make_shared<const int64_t>(thing->bytes), charge);
        thing->loaded_at = absl::Now();
      }
      answer->weights = thing->weights;
      return [answer] { answer->told.Notify(); };
    };
    demand.refuse = [answer](const absl::Status& status) {
      answer->status = status;
      answer->told.Notify();
    };
    queue_.Push(std::move(demand));
  }

  bool Loaded(const std::string& name) {
    absl::MutexLock lock(&mu_);
    return things_.at(name).weights != nullptr;
  }
  int64_t used() { return ledger_->Of("cpu").bytes; }

  std::vector<Held> HeldOn(const std::string&) override {
    std::vector<Held> held;
    for (auto& [name, thing] : things_) {
      if (thing.weights == nullptr) continue;
      held.push_back({&thing,
                      {thing.bytes, thing.loaded_at, thing.last_use,
                       thing.weights.use_count() > 1}});
    }
    return held;
  }
  std::shared_ptr<const void> Drop(SlotId id) override {
    for (auto& [name, thing] : things_) {
      if (&thing != id) continue;
      dropped_.push_back(name);
      if (auto charge = thing.charge.lock()) charge->Leave();
      return std::exchange(thing.weights, nullptr);
    }
    return nullptr;
  }

  absl::Mutex mu_;
  std::map<std::string, Thing> things_;
  std::vector<std::string> dropped_;
  int loads_ = 0;
  std::shared_ptr<MemoryLedger> ledger_ = std::make_shared<MemoryLedger>();
  RoomQueue queue_{&mu_, ledger_, /*budget=*/10, absl::ZeroDuration(), this};
};

TEST_F(RoomQueueTest, WhoFitsBeginsAtOnce) {
  Add("a", 6);
  Add("b", 4);
  Answer a, b, again;
  Ask("a", &a);
  Ask("b", &b);
  Ask("a", &again);
  for (Answer* answer : {&a, &b, &again}) {
    ASSERT_TRUE(answer->told.HasBeenNotified());
    EXPECT_TRUE(answer->status.ok());
  }
  EXPECT_EQ(loads_, 2);
  EXPECT_EQ(used(), 10);
}

TEST_F(RoomQueueTest, TheLeastRecentlyUsedMakesRoom) {
  Add("a", 5);
  Add("b", 5);
  Add("c", 5);
  for (const char* name : {"a", "b", "a", "c"}) {
    Answer answer;
    Ask(name, &answer);
    answer.told.WaitForNotification();
    EXPECT_TRUE(answer.status.ok());
    EXPECT_LE(used(), 10);
  }
  EXPECT_THAT(dropped_, ElementsAre("b"));
  EXPECT_TRUE(Loaded("a"));
}

TEST_F(RoomQueueTest, MemoryIsFreeWhenItsLastUserIsGone) {
  Add("a", 8);
  Add("b", 8);
  Answer a, b, c;
  Ask("a", &a);
  Ask("b", &b);
  EXPECT_FALSE(b.told.WaitForNotificationWithTimeout(absl::Milliseconds(50)));
  EXPECT_FALSE(Loaded("a"));  // nobody gets it any more
  EXPECT_EQ(*a.weights, 8);   // who has it keeps it
  EXPECT_EQ(used(), 8);
  a.weights = nullptr;
  b.told.WaitForNotification();
  EXPECT_TRUE(b.status.ok());
  EXPECT_EQ(used(), 8);
}

TEST_F(RoomQueueTest, WhoNeedsNothingGoesAhead) {
  Add("a", 5);
  Add("b", 5);
  Add("big", 10);
  Answer a, b, big, late;
  Ask("a", &a);
  Ask("b", &b);
  RequestContext context;
  Ask("big", &big, context);  // waits for both
  Ask("a", &late);            // waits behind it, since it was dropped
  EXPECT_FALSE(late.told.HasBeenNotified());
  context.cancelled->store(true);
  big.told.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(big.status));
  a.weights = nullptr;
  late.told.WaitForNotification();
  EXPECT_TRUE(late.status.ok());
}

TEST_F(RoomQueueTest, WaitingEndsAtTheDeadline) {
  Add("a", 8);
  Add("b", 8);
  Answer a, b;
  Ask("a", &a);
  RequestContext hurried;
  hurried.deadline = absl::Now() + absl::Milliseconds(20);
  Ask("b", &b, hurried);
  b.told.WaitForNotification();
  EXPECT_TRUE(absl::IsDeadlineExceeded(b.status));
  EXPECT_FALSE(Loaded("b"));
}

TEST_F(RoomQueueTest, WhatCannotFitIsRefusedWithBothNumbers) {
  Add("huge", 11);
  Answer huge;
  Ask("huge", &huge);
  ASSERT_TRUE(huge.told.HasBeenNotified());
  EXPECT_TRUE(absl::IsResourceExhausted(huge.status));
  EXPECT_THAT(
      std::string(huge.status.message()),
      AllOf(HasSubstr("huge needs 11 bytes"), HasSubstr("accepted: 10")));
}

TEST_F(RoomQueueTest, WhoMayNotEvictTakesWhatIsFree) {
  Add("a", 6);
  Add("b", 6);
  Answer a, b;
  Ask("a", &a, {}, /*evicts=*/false);
  Ask("b", &b, {}, /*evicts=*/false);
  ASSERT_TRUE(b.told.HasBeenNotified());
  EXPECT_TRUE(absl::IsResourceExhausted(b.status));
  EXPECT_TRUE(Loaded("a"));
}

TEST_F(RoomQueueTest, AllWhoWantTheSameBeginTogether) {
  Add("a", 8);
  Add("b", 8);
  Answer a;
  Ask("a", &a);
  std::vector<Answer> many(500);
  std::vector<RequestContext> contexts(many.size());
  for (size_t i = 0; i < many.size(); ++i) Ask("b", &many[i], contexts[i]);
  // Every other one gives up, the first among them.
  for (size_t i = 0; i < many.size(); i += 2) {
    contexts[i].cancelled->store(true);
  }
  many[0].told.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(many[0].status));
  EXPECT_FALSE(many[1].told.HasBeenNotified());
  a.weights = nullptr;
  for (Answer& answer : many) answer.told.WaitForNotification();
  for (size_t i = 1; i < many.size(); i += 2) {
    EXPECT_TRUE(many[i].status.ok()) << many[i].status;
  }
  EXPECT_EQ(loads_, 2);
}

TEST_F(RoomQueueTest, ThoseWhoAreTooManyComeAgain) {
  Add("a", 8);
  Add("b", 8);
  Answer a;
  Ask("a", &a);
  RequestContext context;
  context.client = "notebook";
  constexpr size_t kMost = RoomQueue::kMaxWaitingPerClient;
  std::vector<Answer> many(kMost + 1);
  for (Answer& answer : many) Ask("b", &answer, context);
  ASSERT_TRUE(many[kMost].told.HasBeenNotified());
  EXPECT_TRUE(absl::IsResourceExhausted(many[kMost].status));
  EXPECT_TRUE(many[kMost].status.GetPayload("retry-delay-ms").has_value());
  EXPECT_FALSE(many[0].told.HasBeenNotified());
  // Another client still may wait, and this one again when others have left.
  RequestContext other;
  other.client = "dashboard";
  Answer theirs, later;
  Ask("b", &theirs, other);
  EXPECT_FALSE(theirs.told.HasBeenNotified());
  a.weights = nullptr;
  for (size_t i = 0; i < kMost; ++i) many[i].told.WaitForNotification();
  Ask("b", &later, context);
  EXPECT_TRUE(later.status.ok());
}

TEST_F(RoomQueueTest, StopTellsWhoWaits) {
  Add("a", 8);
  Add("b", 8);
  Answer a, b, late;
  Ask("a", &a);
  Ask("b", &b);
  queue_.Stop();
  ASSERT_TRUE(b.told.HasBeenNotified());
  EXPECT_TRUE(absl::IsUnavailable(b.status));
  Ask("b", &late);
  EXPECT_TRUE(absl::IsUnavailable(late.status));
}

}  // namespace
}  // namespace cupola::engine
