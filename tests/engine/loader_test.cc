#include "server/engine/loader.h"

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::HasSubstr;

// A load that ends when the test says so, and who waits for it.
class LoaderTest : public ::testing::Test {
 protected:
  ~LoaderTest() override { Finish(); }

  struct Answer {
    absl::Notification told;
    absl::StatusOr<int> value;
  };

  void Acquire(const RequestContext& context, Answer* answer) {
    const Loader::Load<int> load = {"thing \"x\"",
                                    [this]() -> absl::StatusOr<int> {
                                      ++loads_;
                                      begun_.Notify();
                                      finish_.WaitForNotification();
                                      return result_;
                                    },
                                    [](absl::Duration) {}};
    loader_.Acquire<int>(slot_, load, context,
                         [answer](absl::StatusOr<int> value) {
                           answer->value = std::move(value);
                           answer->told.Notify();
                         });
  }
  void Finish() {
    if (!finish_.HasBeenNotified()) finish_.Notify();
  }
  bool loading() {
    absl::MutexLock lock(&mu_);
    return slot_.loading();
  }

  absl::StatusOr<int> result_ = 5;
  int loads_ = 0;
  absl::Notification begun_, finish_;
  absl::Mutex mu_;
  LoadSlot<int> slot_;
  Loader loader_{&mu_};
};

TEST_F(LoaderTest, EverybodyIsToldOfTheOneLoad) {
  Answer first, second, late;
  Acquire({}, &first);
  Acquire({}, &second);
  Finish();
  first.told.WaitForNotification();
  second.told.WaitForNotification();
  Acquire({}, &late);
  // At once.
  ASSERT_TRUE(late.told.WaitForNotificationWithTimeout(absl::ZeroDuration()));
  for (const Answer* answer : {&first, &second, &late}) {
    ASSERT_TRUE(answer->value.ok()) << answer->value.status();
    EXPECT_EQ(*answer->value, 5);
  }
  EXPECT_EQ(loads_, 1);
}

TEST_F(LoaderTest, AFailureTellsWhatAndWhy) {
  result_ = absl::InvalidArgumentError("no config");
  Answer answer;
  Acquire({}, &answer);
  Finish();
  answer.told.WaitForNotification();
  EXPECT_EQ(
      answer.value.status(),
      absl::FailedPreconditionError("thing \"x\" failed to load: no config"));
}

TEST_F(LoaderTest, WhatMayPassIsTriedAgain) {
  for (const absl::Status& failure :
       {absl::ResourceExhaustedError("no memory"),
        absl::UnavailableError("the disk does not answer")}) {
    LoadSlot<int> slot;
    int loads = 0;
    const Loader::Load<int> load = {
        "thing \"y\"",
        [&]() -> absl::StatusOr<int> {
          if (++loads == 1) return failure;
          return 7;
        },
        [](absl::Duration) {}};
    std::vector<absl::StatusOr<int>> got;
    for (int i = 0; i < 2; ++i) {
      absl::Notification told;
      loader_.Acquire<int>(slot, load, {}, [&](absl::StatusOr<int> value) {
        got.push_back(std::move(value));
        told.Notify();
      });
      told.WaitForNotification();
    }
    EXPECT_EQ(got[0].status().code(), failure.code());
    EXPECT_THAT(std::string(got[0].status().message()),
                HasSubstr(std::string(failure.message())));
    ASSERT_TRUE(got[1].ok()) << got[1].status();
    EXPECT_EQ(*got[1], 7);
  }
}

TEST_F(LoaderTest, ARequestWaitsUntilItsDeadlineOnly) {
  RequestContext hurried;
  hurried.deadline = absl::Now() + absl::Milliseconds(5);
  Answer soon, patient;
  Acquire({}, &patient);
  Acquire(hurried, &soon);
  soon.told.WaitForNotification();
  EXPECT_TRUE(absl::IsDeadlineExceeded(soon.value.status()));
  // Nothing has happened to the load or to others.
  EXPECT_TRUE(loading());
  EXPECT_FALSE(patient.told.HasBeenNotified());
  Finish();
  patient.told.WaitForNotification();
  EXPECT_TRUE(patient.value.ok());
}

TEST_F(LoaderTest, ACancelledRequestLeaves) {
  RequestContext context;
  Answer answer;
  Acquire(context, &answer);
  context.cancelled->store(true);
  answer.told.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(answer.value.status()));
  EXPECT_TRUE(loading());
}

TEST_F(LoaderTest, WhoLeavesFreesWhatItHolds) {
  auto held = std::make_shared<int>(1);
  RequestContext context;
  context.cancelled->store(true);
  absl::Notification told;
  WaitList list;
  const auto waiter = list.Add<int>(
      context, [held, &told](absl::StatusOr<int>) { told.Notify(); });
  told.WaitForNotification();
  while (held.use_count() > 1) std::this_thread::yield();
  waiter(7);  // too late, and nobody is called again
}

TEST_F(LoaderTest, StopTellsTheWaitingBeforeTheLoadEnds) {
  Answer waiting, late;
  Acquire({}, &waiting);
  begun_.WaitForNotification();
  std::thread stop([this] { loader_.Stop(); });
  waiting.told.WaitForNotification();  // while the load still runs
  EXPECT_TRUE(absl::IsUnavailable(waiting.value.status()));
  Finish();
  stop.join();
  EXPECT_FALSE(loading());
  LoadSlot<int> other;
  loader_.Acquire<int>(
      other, {"y", [] { return 1; }, [](absl::Duration) {}}, {},
      [&](absl::StatusOr<int> value) { late.value = std::move(value); });
  EXPECT_TRUE(absl::IsUnavailable(late.value.status()));
  EXPECT_THAT(std::string(late.value.status().message()),
              HasSubstr("shutting down"));
}

}  // namespace
}  // namespace cupola::engine
