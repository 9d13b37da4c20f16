#include "storage/disk_tier.h"

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "rocksdb/env.h"

namespace cupola::storage {
namespace {

TEST(DiskBudgetTest, LeavesRoomForTheLogAndTheFileInTheMaking) {
  for (int64_t capacity : {int64_t{4} << 20, int64_t{64} << 20,
                           int64_t{10} << 30, int64_t{1} << 40}) {
    const DiskBudget budget = DiskBudgetFor(capacity);
    // Writes wait above patience_bytes, which is checked once per buffer; one
    // more buffer and one record can be on the way.
    EXPECT_LE(budget.patience_bytes + 2 * budget.write_buffer_bytes, capacity);
    EXPECT_LT(budget.table_files_bytes, budget.patience_bytes);
    EXPECT_GE(budget.table_files_bytes, capacity / 2);
    EXPECT_LE(budget.largest_record, budget.table_files_bytes);
  }
}

TEST(DiskBudgetTest, KeepsFilesFewAndBuffersBounded) {
  for (int64_t capacity :
       {int64_t{64} << 20, int64_t{10} << 30, int64_t{32} << 30}) {
    const DiskBudget budget = DiskBudgetFor(capacity);
    EXPECT_LE(capacity / budget.write_buffer_bytes, 256);
  }
  EXPECT_LE(DiskBudgetFor(int64_t{1} << 50).write_buffer_bytes, 128 << 20);
}

TEST(DiskBudgetTest, TinyCapacitiesStillHoldSomething) {
  for (int64_t capacity : {int64_t{1}, int64_t{1} << 16, int64_t{1} << 20}) {
    const DiskBudget budget = DiskBudgetFor(capacity);
    EXPECT_GT(budget.write_buffer_bytes, 0);
    EXPECT_GE(budget.table_files_bytes, 0);
    EXPECT_LE(budget.table_files_bytes, capacity);
  }
}

// An hour goes by between two looks at its clock.
class AgingEnv final : public rocksdb::EnvWrapper {
 public:
  AgingEnv() : EnvWrapper(rocksdb::Env::Default()) {}
  rocksdb::Status GetCurrentTime(int64_t* seconds) override {
    *seconds = now_ += 3600;
    return rocksdb::Status::OK();
  }

 private:
  std::atomic<int64_t> now_{1'700'000'000};
};

TEST(DiskTierTest, TellsHowOldWhatItEvictsIs) {
  AgingEnv env;
  const std::string directory = ::testing::TempDir() + "/aging_cache";
  std::filesystem::remove_all(directory);
  auto tier = DiskTier::Open({.directory = directory,
                              .capacity_bytes = 4 << 20,
                              .env = &env,
                              .now = absl::Now()});
  ASSERT_TRUE(tier.ok()) << tier.status();
  EXPECT_EQ((*tier)->GetSizes().evicted_age_seconds, 0);
  // RocksDB's threads make room when they get to it: until then there is more.
  const std::string record(64 << 10, 'x');
  CacheKey key = {};
  while ((*tier)->GetSizes().evicted_age_seconds == 0) {
    ++key.scope;
    ASSERT_TRUE((*tier)->Write(key, record).ok());
    ASSERT_LT(key.scope, 100'000u);
  }
  EXPECT_GE((*tier)->GetSizes().evicted_age_seconds, 3600);
  tier->reset();
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace cupola::storage
