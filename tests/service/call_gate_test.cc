#include "server/service/call_gate.h"

#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace cupola::service {
namespace {

TEST(CallGate, RefusesOnceShut) {
  CallGate gate;
  EXPECT_TRUE(gate.Enter());
  gate.Shut();
  EXPECT_FALSE(gate.Enter());
}

TEST(CallGate, WaitsForThoseInside) {
  CallGate gate;
  ASSERT_TRUE(gate.Enter());
  ASSERT_TRUE(gate.Enter());
  gate.Shut();
  gate.AwaitEmpty(absl::Now());  // nobody has left: the deadline ends it
  gate.Leave();
  std::thread last([&] { gate.Leave(); });
  gate.AwaitEmpty(absl::InfiniteFuture());  // or never returns
  last.join();
}

TEST(CallGate, TheRefusedAreNotInside) {
  CallGate gate;
  gate.Shut();
  EXPECT_FALSE(gate.Enter());
  gate.AwaitEmpty(absl::InfiniteFuture());  // or never returns
}

TEST(CallGate, QuietBeginsWithTheLastCall) {
  constexpr absl::Duration kSpell = absl::Milliseconds(20);
  CallGate gate;
  gate.AwaitQuiet(absl::InfiniteDuration(), absl::Now());
  gate.Shut();
  const absl::Time refused = absl::Now();
  EXPECT_FALSE(gate.Enter());
  gate.AwaitQuiet(kSpell, absl::InfiniteFuture());
  EXPECT_GE(absl::Now() - refused, kSpell);
}

}  // namespace
}  // namespace cupola::service
