#include "server/engine/client_shares.h"

#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

TEST(ClientShares, CountsWhatWaits) {
  ClientShares shares;
  shares.Enter(1, 3);
  shares.Leave(1);
  EXPECT_EQ(shares.queued(1), 2);
  EXPECT_EQ(shares.queued(2), 0);
}

TEST(ClientShares, WhoComesBackStartsLevelWithThoseWhoWait) {
  ClientShares shares;
  shares.Enter(1);
  shares.Enter(2);
  shares.Give(1, 100);
  shares.Give(2, 30);
  shares.Leave(2);
  // 2 is away while 1 is given more.
  shares.Give(1, 50);
  shares.Enter(2);
  EXPECT_EQ(shares.given(1), 150);
  EXPECT_EQ(shares.given(2), 150);
  // Somebody new does too.
  shares.Enter(3);
  EXPECT_EQ(shares.given(3), 150);
}

TEST(ClientShares, APauseDoesNotPayOffADebt) {
  ClientShares shares;
  shares.Enter(1);
  shares.Enter(2);
  shares.Give(2, 500);
  shares.Leave(2);
  shares.Enter(2);
  EXPECT_EQ(shares.given(2), 500);
}

TEST(ClientShares, AllAreLevelOnceNobodyWaits) {
  ClientShares shares;
  shares.Enter(1);
  shares.Give(1, 1000);
  shares.Leave(1);
  shares.Enter(2);
  shares.Enter(1);
  EXPECT_EQ(shares.given(1), shares.given(2));
}

}  // namespace
}  // namespace cupola::engine
