// The result cache on a disk that is full or broken: requests see misses, and
// the cache comes back when the disk does.

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/result_cache.h"
#include "storage/result_cache_peer.h"
#include "tests/storage/cache_test_util.h"
#include "tests/storage/fault_env.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

using ::testing::HasSubstr;

// A clock that the test moves. The cache's is a plain function.
std::atomic<int64_t> fake_seconds{0};

class FaultTest : public testing::Test {
 protected:
  FaultTest() {
    fake_seconds = 1000000;
    options_ = CacheOptionsFor(directory_ / "results");
    options_.write_retry_delay = absl::Seconds(10);
    options_.now = [] { return absl::FromUnixSeconds(fake_seconds); };
    Reopen();
  }
  ~FaultTest() override {
    env_.Set(Fault::kNone);
    cache_.reset();
  }

  void Reopen() {
    cache_.reset();
    absl::StatusOr<std::unique_ptr<ResultCache>> cache =
        ResultCachePeer::Open(options_, env_.env());
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
  }

  void PutRange(uint64_t begin, uint64_t end) {
    for (uint64_t n = begin; n < end; ++n) {
      cache_->Put(NumberedKey(n), NumberedRecord(n));
    }
    cache_->Flush();
  }

  // Lets the retry delay pass; the next write tries the disk again.
  void PassDelay() { fake_seconds += 11; }

  TempDirectory directory_;
  FaultEnv env_;  // outlives the cache
  ResultCacheOptions options_;
  std::unique_ptr<ResultCache> cache_;
};

TEST_F(FaultTest, AFullDiskStopsWritesForAWhileAndReadsGoOn) {
  PutRange(0, 10);
  env_.Set(Fault::kDiskFull);
  PutRange(10, 20);
  ResultCacheStatistics statistics = cache_->GetStatistics();
  EXPECT_EQ(statistics.write_errors, 1);  // tried once, then left alone
  EXPECT_EQ(statistics.inserts, 10);
  EXPECT_EQ(statistics.dropped_inserts, 10);
  EXPECT_EQ(CountRight(cache_.get(), 20), 10);

  // Space comes back, but the delay has not passed.
  env_.Set(Fault::kNone);
  fake_seconds += 9;
  PutRange(10, 20);
  EXPECT_EQ(cache_->GetStatistics().dropped_inserts, 20);

  PassDelay();
  PutRange(10, 20);
  EXPECT_EQ(CountRight(cache_.get(), 20), 20);
  Reopen();
  EXPECT_EQ(CountRight(cache_.get(), 20), 20);
  EXPECT_EQ(cache_->MovedAsideTo(), "");
}

TEST_F(FaultTest, ADiskThatStaysFullIsTriedOncePerDelay) {
  PutRange(0, 10);
  env_.Set(Fault::kDiskFull);
  PutRange(10, 11);
  for (int i = 0; i < 5; ++i) {
    PassDelay();
    const int64_t before = cache_->GetStatistics().write_errors;
    PutRange(10, 20);
    EXPECT_EQ(cache_->GetStatistics().write_errors, before + 1);
    EXPECT_EQ(CountRight(cache_.get(), 20), 10);
  }
}

TEST_F(FaultTest, FailingWritesAreSurvivedToo) {
  PutRange(0, 10);
  env_.Set(Fault::kWritesFail);
  PutRange(10, 20);
  EXPECT_GE(cache_->GetStatistics().write_errors, 1);
  EXPECT_EQ(CountRight(cache_.get(), 20), 10);
  env_.Set(Fault::kNone);
  PassDelay();
  PutRange(10, 20);
  EXPECT_EQ(CountRight(cache_.get(), 20), 20);
}

// Fails while table files are written in the background.
TEST_F(FaultTest, AFullDiskDuringAFlushOfTables) {
  options_.capacity_bytes = 8 << 20;  // 256 KiB to a table file
  Reopen();
  PutRange(0, 200);
  env_.Set(Fault::kDiskFull);
  for (uint64_t n = 200; n < 2000; ++n) {
    cache_->Put(NumberedKey(n), NumberedRecord(n));
    if (n % 100 == 0) PassDelay();
  }
  cache_->Flush();
  CountRight(cache_.get(), 2000);
  env_.Set(Fault::kNone);
  PassDelay();
  PutRange(200, 2000);
  EXPECT_EQ(CountRight(cache_.get(), 2000), 2000);
  Reopen();
  EXPECT_EQ(CountRight(cache_.get(), 2000), 2000);
}

TEST_F(FaultTest, AFailingClearIsCountedAndTheNextOneDoesNotWait) {
  PutRange(0, 10);
  env_.Set(Fault::kWritesFail);
  cache_->Clear();
  cache_->ClearScope(1);
  EXPECT_GE(cache_->GetStatistics().write_errors, 1);
  CountRight(cache_.get(), 10);
  env_.Set(Fault::kNone);
  cache_->Clear();
  EXPECT_EQ(CountRight(cache_.get(), 10), 0);
  PutRange(0, 10);
  EXPECT_EQ(CountRight(cache_.get(), 10), 10);
}

TEST_F(FaultTest, FailingReadsAreMissesAndDeleteNothing) {
  PutRange(0, 10);
  Reopen();  // into table files
  env_.Set(Fault::kReadsFail);
  EXPECT_EQ(CountRight(cache_.get(), 10), 0);
  EXPECT_EQ(cache_->GetStatistics().read_errors, 10);
  EXPECT_EQ(cache_->GetStatistics().corrupt_records, 0);
  env_.Set(Fault::kNone);
  cache_->Flush();
  EXPECT_EQ(CountRight(cache_.get(), 10), 10);
}

TEST_F(FaultTest, AFullDiskAtOpenIsAnErrorAndCostsNothing) {
  PutRange(0, 10);
  cache_.reset();
  env_.Set(Fault::kDiskFull);
  const absl::Status status =
      ResultCachePeer::Open(options_, env_.env()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr(options_.directory));
  env_.Set(Fault::kNone);
  Reopen();
  EXPECT_EQ(CountRight(cache_.get(), 10), 10);
}

}  // namespace
}  // namespace cupola::storage
