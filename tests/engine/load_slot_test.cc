#include "server/engine/load_slot.h"

#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

TEST(LoadSlot, OnlyTheFirstToJoinLoads) {
  LoadSlot<int> slot;
  int told = 0;
  const auto tell = [&](absl::StatusOr<int> value) { told += *value; };
  EXPECT_TRUE(slot.Join(tell));
  EXPECT_FALSE(slot.Join(tell));
  EXPECT_TRUE(slot.loading());
  for (auto& waiter : slot.Settle(5)) waiter(5);
  EXPECT_EQ(told, 10);
  EXPECT_TRUE(slot.ready());
  EXPECT_EQ(slot.value(), 5);
}

TEST(LoadSlot, AFailureIsKeptUntilReset) {
  LoadSlot<int> slot;
  slot.Join([](absl::StatusOr<int>) {});
  slot.Settle(absl::DataLossError("short file"));
  EXPECT_TRUE(slot.failed());
  EXPECT_FALSE(slot.ready());
  EXPECT_EQ(slot.status().message(), "short file");
  slot.Reset();
  EXPECT_FALSE(slot.failed());
  EXPECT_TRUE(slot.status().ok());
  EXPECT_TRUE(slot.Join([](absl::StatusOr<int>) {}));
}

}  // namespace
}  // namespace cupola::engine
