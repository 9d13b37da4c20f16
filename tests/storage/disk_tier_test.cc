#include "storage/disk_tier.h"

#include <cstdint>

#include "gtest/gtest.h"

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

}  // namespace
}  // namespace cupola::storage
