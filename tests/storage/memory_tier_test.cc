#include "storage/memory_tier.h"

#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

constexpr size_t kBytes = 1000;

int64_t Charge() {
  return MemoryBytes(*NumberedRecord(0, kBytes)) + MemoryTier::kEntryBytes;
}

void Insert(MemoryTier* tier, uint64_t n) {
  tier->Insert(NumberedKey(n), NumberedRecord(n, kBytes));
}

bool Has(MemoryTier* tier, uint64_t n) {
  const std::shared_ptr<const Record> record = tier->Find(NumberedKey(n));
  if (record != nullptr) {
    EXPECT_EQ(*record, *NumberedRecord(n, kBytes));
  }
  return record != nullptr;
}

TEST(MemoryTierTest, TheLeastRecentlyUsedLeaves) {
  MemoryTier tier(3 * Charge());
  Insert(&tier, 1);
  Insert(&tier, 2);
  Insert(&tier, 3);
  EXPECT_TRUE(Has(&tier, 1));  // now 2 is the oldest
  Insert(&tier, 4);
  EXPECT_TRUE(Has(&tier, 1));
  EXPECT_FALSE(Has(&tier, 2));
  EXPECT_TRUE(Has(&tier, 3));
  EXPECT_TRUE(Has(&tier, 4));
}

TEST(MemoryTierTest, ChargesBytes) {
  MemoryTier tier(3 * Charge() - 1);
  EXPECT_EQ(tier.bytes(), 0);
  Insert(&tier, 1);
  EXPECT_EQ(tier.bytes(), Charge());
  Insert(&tier, 1);  // replaced, not added
  EXPECT_EQ(tier.bytes(), Charge());
  Insert(&tier, 2);
  EXPECT_EQ(tier.bytes(), 2 * Charge());
  Insert(&tier, 3);  // three do not fit
  EXPECT_EQ(tier.bytes(), 2 * Charge());
  tier.Clear();
  EXPECT_EQ(tier.bytes(), 0);
}

TEST(MemoryTierTest, ALargeRecordEvictsAsManyAsItNeeds) {
  MemoryTier tier(4 * Charge());
  for (uint64_t n = 1; n <= 4; ++n) Insert(&tier, n);
  tier.Insert(NumberedKey(5), NumberedRecord(5, 2 * kBytes));
  EXPECT_FALSE(Has(&tier, 1));
  EXPECT_FALSE(Has(&tier, 2));
  EXPECT_TRUE(Has(&tier, 3));
  EXPECT_TRUE(Has(&tier, 4));
  EXPECT_NE(tier.Find(NumberedKey(5)), nullptr);
  EXPECT_LE(tier.bytes(), 4 * Charge());
}

TEST(MemoryTierTest, ARecordAboveTheCapacityIsNotKept) {
  MemoryTier tier(Charge());
  Insert(&tier, 1);
  tier.Insert(NumberedKey(2), NumberedRecord(2, 2 * kBytes));
  EXPECT_TRUE(Has(&tier, 1));
  EXPECT_EQ(tier.Find(NumberedKey(2)), nullptr);
  // It still takes the place of the key's former record, which is out of date.
  tier.Insert(NumberedKey(1), NumberedRecord(2, 2 * kBytes));
  EXPECT_EQ(tier.Find(NumberedKey(1)), nullptr);
  EXPECT_EQ(tier.bytes(), 0);
}

TEST(MemoryTierTest, ZeroCapacityKeepsNothing) {
  MemoryTier tier(0);
  Insert(&tier, 1);
  EXPECT_FALSE(Has(&tier, 1));
  EXPECT_EQ(tier.bytes(), 0);
}

TEST(MemoryTierTest, AnEvictedRecordLivesOnWithItsReader) {
  MemoryTier tier(Charge());
  Insert(&tier, 1);
  const std::shared_ptr<const Record> held = tier.Find(NumberedKey(1));
  Insert(&tier, 2);
  EXPECT_FALSE(Has(&tier, 1));
  EXPECT_EQ(*held, *NumberedRecord(1, kBytes));
}

TEST(MemoryTierTest, ClearScopeLeavesTheOthers) {
  MemoryTier tier(100 * Charge());
  for (uint64_t n = 0; n < 8; ++n) Insert(&tier, n);  // scope n % 4
  tier.ClearScope(1);
  for (uint64_t n = 0; n < 8; ++n) EXPECT_EQ(Has(&tier, n), n % 4 != 1) << n;
  EXPECT_EQ(tier.bytes(), 6 * Charge());
}

TEST(MemoryTierTest, WhatWasReadBeforeAClearStaysOut) {
  MemoryTier tier(100 * Charge());
  const uint64_t before = tier.generation();
  tier.Clear();
  tier.InsertRead(NumberedKey(1), NumberedRecord(1, kBytes), before);
  EXPECT_FALSE(Has(&tier, 1));
  tier.InsertRead(NumberedKey(1), NumberedRecord(1, kBytes), tier.generation());
  EXPECT_TRUE(Has(&tier, 1));
}

TEST(MemoryTierTest, WhatWasReadDoesNotReplaceWhatWasPut) {
  MemoryTier tier(100 * Charge());
  tier.Insert(NumberedKey(1), NumberedRecord(2, kBytes));
  tier.InsertRead(NumberedKey(1), NumberedRecord(1, kBytes), tier.generation());
  EXPECT_EQ(*tier.Find(NumberedKey(1)), *NumberedRecord(2, kBytes));
}

TEST(MemoryTierTest, ThreadsShareIt) {
  MemoryTier tier(5 * Charge());
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&tier, t] {
      for (uint64_t i = 0; i < 500; ++i) {
        const uint64_t n = (i * 7 + t) % 12;
        if (!Has(&tier, n)) Insert(&tier, n);
        if (i % 100 == 99) tier.ClearScope(t);
        EXPECT_LE(tier.bytes(), 5 * Charge());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace cupola::storage
