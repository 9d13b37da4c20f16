#include "server/engine/residency_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1000);

// Loaded long ago, used so many seconds ago.
Resident Used(int64_t bytes, int seconds_ago) {
  return {bytes, kNow - absl::Seconds(900), kNow - absl::Seconds(seconds_ago),
          false};
}
Resident Busy(int64_t bytes, int seconds_ago) {
  Resident resident = Used(bytes, seconds_ago);
  resident.in_use = true;
  return resident;
}
Resident Young(int64_t bytes, int seconds_old) {
  Resident resident = Used(bytes, seconds_old);
  resident.loaded_at = kNow - absl::Seconds(seconds_old);
  return resident;
}

RoomWanted Wanted(int64_t bytes) {
  return {.bytes = bytes, .now = kNow, .min_residency = absl::Seconds(10)};
}

TEST(ChooseEvictionsTest, TheLeastRecentlyUsedLeavesFirst) {
  EXPECT_THAT(
      ChooseEvictions({Used(5, 1), Used(5, 30), Used(5, 20)}, Wanted(5)),
      ElementsAre(1));
  EXPECT_THAT(
      ChooseEvictions({Used(5, 1), Used(5, 30), Used(5, 20)}, Wanted(6)),
      ElementsAre(1, 2));
}

TEST(ChooseEvictionsTest, NobodyLeavesForNothing) {
  EXPECT_THAT(ChooseEvictions({Used(5, 1)}, Wanted(0)), IsEmpty());
  // Not enough even together.
  EXPECT_THAT(ChooseEvictions({Used(5, 1), Used(5, 2)}, Wanted(11)), IsEmpty());
}

TEST(ChooseEvictionsTest, WhatALaterOneMakesUnnecessaryStays) {
  EXPECT_THAT(ChooseEvictions({Used(2, 30), Used(9, 20)}, Wanted(9)),
              ElementsAre(1));
}

TEST(ChooseEvictionsTest, TheBusyLeaveAfterTheIdle) {
  EXPECT_THAT(ChooseEvictions({Busy(5, 30), Used(5, 1)}, Wanted(5)),
              ElementsAre(1));
  EXPECT_THAT(
      ChooseEvictions({Busy(5, 30), Busy(5, 40), Used(5, 1)}, Wanted(10)),
      ElementsAre(2, 1));
}

TEST(ChooseEvictionsTest, TheYoungStayUntilTheyAreOldEnough) {
  EXPECT_THAT(ChooseEvictions({Young(5, 9)}, Wanted(5)), IsEmpty());
  EXPECT_THAT(ChooseEvictions({Young(5, 10)}, Wanted(5)), ElementsAre(0));
  // Rather one in use than a young one.
  EXPECT_THAT(ChooseEvictions({Young(5, 9), Busy(5, 1)}, Wanted(5)),
              ElementsAre(1));
}

TEST(ChooseEvictionsTest, TheYoungLeaveForWhoCannotWaitSoLong) {
  RoomWanted wanted = Wanted(5);
  wanted.deadline = kNow + absl::Seconds(1);  // ripe at that very moment
  EXPECT_THAT(ChooseEvictions({Young(5, 9)}, wanted), ElementsAre(0));
  wanted.deadline = kNow + absl::Seconds(2);
  EXPECT_THAT(ChooseEvictions({Young(5, 9)}, wanted), IsEmpty());
}

TEST(ChooseDeviceTest, WhereMostIsLeft) {
  EXPECT_EQ(ChooseDevice({{100, 60}, {100, 30}, {100, 30}}, 50), 1u);
  EXPECT_EQ(ChooseDevice({{100, 0}}, 500), 0u);
  EXPECT_EQ(ChooseDevice({{0, 60}, {0, 30}}, 50), 1u);  // without limits
}

TEST(ChooseDeviceTest, RatherOneThatHoldsItThanAnEmptierOne) {
  EXPECT_EQ(ChooseDevice({{40, 0}, {100, 90}}, 50), 1u);
  // Nowhere at all: where it will be refused with the larger number.
  EXPECT_EQ(ChooseDevice({{40, 0}, {45, 0}}, 50), 1u);
}

}  // namespace
}  // namespace cupola::engine
