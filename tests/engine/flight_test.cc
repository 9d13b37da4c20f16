#include "server/engine/flight.h"

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using RecordPtr = std::shared_ptr<const storage::Record>;

storage::CacheKey Key(uint8_t which) {
  storage::CacheKey key;
  key.digest[0] = which;
  return key;
}

Landed Some() { return {std::make_shared<const storage::Record>(), {}}; }

// What came of one passenger.
struct Outcome {
  std::atomic<int> landed{0}, failed{0}, led{0};
  std::shared_ptr<Flight> flight;  // that was handed over
  absl::Notification told;
  absl::Status status;
};

Flight::Passenger Board(Outcome* outcome, RequestContext context = {}) {
  return {std::move(context),
          [=](absl::StatusOr<Landed> landed) {
            landed.ok() ? ++outcome->landed : ++outcome->failed;
            outcome->status = landed.status();
            outcome->told.Notify();
          },
          [=](std::shared_ptr<Flight> flight) {
            ++outcome->led;
            outcome->flight = std::move(flight);
          }};
}

TEST(Flights, WhoAsksForTheSameIsTakenAlong) {
  int kept = 0;
  Flights flights([&](const storage::CacheKey&, const RecordPtr&) { ++kept; });
  Outcome first, second, other;
  const auto flight = flights.Board(Key(1), Board(&first));
  ASSERT_NE(flight, nullptr);
  EXPECT_EQ(flights.Board(Key(1), Board(&second)), nullptr);
  const auto another = flights.Board(Key(2), Board(&other));
  ASSERT_NE(another, nullptr);
  EXPECT_EQ(flights.in_flight(), 2);
  flight->Land(Some());
  EXPECT_EQ(first.landed, 1);
  EXPECT_EQ(second.landed, 1);
  EXPECT_EQ(other.landed, 0);
  EXPECT_EQ(kept, 1);
  another->Land(absl::InternalError("broken"));
  EXPECT_EQ(other.failed, 1);
  EXPECT_EQ(kept, 1);  // an error is not kept
  EXPECT_EQ(flights.in_flight(), 0);
}

TEST(Flights, WhoComesAfterTheLandingStartsAnother) {
  Flights flights(nullptr);
  Outcome first, second;
  const uint64_t before = flights.Ended(Key(1));
  flights.Board(Key(1), Board(&first))->Land(Some());
  EXPECT_NE(flights.Ended(Key(1)), before);
  const auto flight = flights.Board(Key(1), Board(&second));
  ASSERT_NE(flight, nullptr);
  flight->Land(Some());
  EXPECT_EQ(second.landed, 1);
}

TEST(Flights, TheFirstMayLeaveAndTheFlightGoesOn) {
  Flights flights(nullptr);
  Outcome first, second;
  RequestContext leaves;
  const auto flight = flights.Board(Key(1), Board(&first, leaves));
  ASSERT_EQ(flights.Board(Key(1), Board(&second)), nullptr);
  leaves.cancelled->store(true);
  first.told.WaitForNotification();  // at once, not at the landing
  EXPECT_TRUE(absl::IsCancelled(first.status));
  EXPECT_TRUE(flight->StillWanted().ok());
  flight->Land(Some());
  EXPECT_EQ(second.landed, 1);
  EXPECT_EQ(first.landed, 0);
  EXPECT_EQ(first.failed, 1);
}

TEST(Flights, EachKeepsADeadlineOfItsOwn) {
  Flights flights(nullptr);
  Outcome first, second;
  RequestContext hurried;
  hurried.deadline = absl::Now() + absl::Milliseconds(20);
  const auto flight = flights.Board(Key(1), Board(&first));
  ASSERT_EQ(flights.Board(Key(1), Board(&second, hurried)), nullptr);
  second.told.WaitForNotification();
  EXPECT_TRUE(absl::IsDeadlineExceeded(second.status));
  EXPECT_FALSE(first.told.HasBeenNotified());
  flight->Land(Some());
  EXPECT_EQ(first.landed, 1);
}

TEST(Flights, NobodyLeftMeansUnwanted) {
  Flights flights(nullptr);
  Outcome first, second;
  RequestContext one, two;
  const auto flight = flights.Board(Key(1), Board(&first, one));
  ASSERT_EQ(flights.Board(Key(1), Board(&second, two)), nullptr);
  one.cancelled->store(true);
  EXPECT_TRUE(flight->StillWanted().ok());
  two.cancelled->store(true);
  EXPECT_TRUE(absl::IsCancelled(flight->StillWanted()));
  flight->Land(flight->StillWanted());
  first.told.WaitForNotification();
  second.told.WaitForNotification();
  EXPECT_EQ(first.failed + second.failed, 2);
}

TEST(Flights, WhoBoardsAFlightThatWasGivenUpTriesAgain) {
  Flights flights(nullptr);
  Outcome first, second;
  RequestContext leaves;
  const auto flight = flights.Board(Key(1), Board(&first, leaves));
  leaves.cancelled->store(true);
  const absl::Status unwanted = flight->StillWanted();
  // Between the look and the landing.
  ASSERT_EQ(flights.Board(Key(1), Board(&second)), nullptr);
  flight->Land(unwanted);
  EXPECT_EQ(second.led, 1);
  EXPECT_EQ(second.failed, 0);
  second.flight->Land(Some());
  EXPECT_EQ(second.landed, 1);
  EXPECT_EQ(first.failed, 1);
  EXPECT_EQ(flights.in_flight(), 0);
}

TEST(Flights, AFlightThatNeverTookOffIsTheFirstPassengersAffair) {
  Flights flights(nullptr);
  Outcome first, gone, third, fourth;
  RequestContext leaves;
  auto flight = flights.Board(Key(1), Board(&first));
  ASSERT_EQ(flights.Board(Key(1), Board(&gone, leaves)), nullptr);
  ASSERT_EQ(flights.Board(Key(1), Board(&third)), nullptr);
  leaves.cancelled->store(true);
  flight->Abandon(absl::ResourceExhaustedError("full"));
  EXPECT_TRUE(absl::IsResourceExhausted(first.status));
  // The next who still waits leads it, and it can be boarded as before.
  EXPECT_EQ(gone.led, 0);
  EXPECT_EQ(third.led, 1);
  EXPECT_EQ(third.failed, 0);
  EXPECT_EQ(flights.Board(Key(1), Board(&fourth)), nullptr);
  third.flight->Land(Some());
  EXPECT_EQ(third.landed, 1);
  EXPECT_EQ(fourth.landed, 1);
  gone.told.WaitForNotification();
  EXPECT_EQ(gone.failed, 1);
  EXPECT_EQ(flights.in_flight(), 0);
}

TEST(Flights, WhenAllGiveUpNothingIsLeft) {
  Flights flights(nullptr);
  constexpr int kPassengers = 1000;
  std::vector<Outcome> all(kPassengers);
  std::shared_ptr<Flight> flight;
  for (Outcome& one : all) {
    auto led = flights.Board(Key(1), Board(&one));
    if (led != nullptr) flight = std::move(led);
  }
  // Each leads in turn, and fails for a reason of his own.
  for (size_t i = 0; i < all.size(); ++i) {
    flight->Abandon(absl::ResourceExhaustedError("full"));
    EXPECT_EQ(all[i].failed, 1);
    if (i + 1 < all.size()) {
      EXPECT_EQ(all[i + 1].led, 1);
    }
  }
  EXPECT_EQ(flights.in_flight(), 0);
}

TEST(Flights, NobodyBoardsACharteredOne) {
  int kept = 0;
  Flights flights([&](const storage::CacheKey&, const RecordPtr&) { ++kept; });
  Outcome first, second;
  const auto chartered = flights.Charter(Key(1), Board(&first));
  const auto flight = flights.Board(Key(1), Board(&second));
  ASSERT_NE(flight, nullptr);
  chartered->Land(Some());
  EXPECT_EQ(first.landed, 1);
  EXPECT_EQ(second.landed, 0);
  EXPECT_EQ(kept, 1);
  flight->Land(Some());
}

}  // namespace
}  // namespace cupola::engine
