#include "server/engine/cost.h"

#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using analysis::Operation;

TEST(PassFlops, CountsTwoForEveryWeight) {
  // Pythia-70m: 6 layers of 4 x 512^2 and 2 x 512 x 2048 weights.
  model::ModelConfig config;
  config.n_layers = 6;
  config.d_model = 512;
  config.n_heads = config.n_kv_heads = 8;
  config.d_head = 64;
  config.d_mlp = 2048;
  EXPECT_DOUBLE_EQ(PassFlops(config),
                   2.0 * 6 * (4 * 512 * 512 + 2 * 512 * 2048));
  // Grouped keys and values, a gate.
  config.n_kv_heads = 2;
  config.gated_mlp = true;
  EXPECT_DOUBLE_EQ(PassFlops(config),
                   2.0 * 6 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 2048));
}

TEST(DeviceSpeed, AssumesUntilItHasMeasured) {
  DeviceSpeed speed(1e9);
  EXPECT_NEAR(speed.Seconds(Operation::kRun, 1e9), 1, 0.01);
  EXPECT_FALSE(speed.Measured(Operation::kRun, 1e9));
  for (int i = 0; i < 3; ++i) speed.Learn(Operation::kRun, 1e9, 0.101);
  EXPECT_TRUE(speed.Measured(Operation::kRun, 1e9));
  EXPECT_NEAR(speed.Seconds(Operation::kRun, 1e9), 0.101, 1e-9);
  EXPECT_NEAR(speed.Seconds(Operation::kRun, 2e9), 0.201, 1e-9);
  // Another operation's speed is its own.
  EXPECT_FALSE(speed.Measured(Operation::kAblate, 1));
}

TEST(DeviceSpeed, SmallWorkSaysLittleOfLargeWork) {
  DeviceSpeed speed(1e9);
  for (int i = 0; i < 3; ++i) speed.Learn(Operation::kRun, 1e3, 2e-3);
  EXPECT_TRUE(speed.Measured(Operation::kRun, 1e4));
  EXPECT_FALSE(speed.Measured(Operation::kRun, 1e9));
}

TEST(DeviceSpeed, WorkWithoutACountTeachesNothing) {
  DeviceSpeed speed(1e9);
  for (int i = 0; i < 100; ++i) speed.Learn(Operation::kRun, 0, 1);
  EXPECT_NEAR(speed.Seconds(Operation::kRun, 1e9), 1, 0.01);
}

TEST(DeviceSpeed, FollowsAChange) {
  DeviceSpeed speed(1e9);
  for (int i = 0; i < 20; ++i) speed.Learn(Operation::kRun, 1e9, 1);
  for (int i = 0; i < 20; ++i) speed.Learn(Operation::kRun, 1e9, 2);
  EXPECT_NEAR(speed.Seconds(Operation::kRun, 1e9), 2, 0.05);
}

}  // namespace
}  // namespace cupola::engine
