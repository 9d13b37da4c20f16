#include "storage/result_cache.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

using ::testing::HasSubstr;

class ResultCacheTest : public testing::Test {
 protected:
  ResultCacheTest() {
    options_.directory = directory_ / "deep/results";
    options_.capacity_bytes = 64 << 20;
    options_.memory_bytes = 0;  // so that every Get reads the disk
    Open();
  }

  void Open() {
    cache_.reset();
    absl::StatusOr<std::unique_ptr<ResultCache>> cache =
        ResultCache::Open(options_);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
  }

  void Put(uint64_t n, size_t bytes = 1000) {
    cache_->Put(NumberedKey(n), NumberedRecord(n, bytes));
  }
  // Whether the cache has record n; what it has must be right.
  bool Has(uint64_t n, size_t bytes = 1000) {
    const std::shared_ptr<const Record> record = cache_->Get(NumberedKey(n));
    if (record != nullptr) {
      EXPECT_EQ(*record, *NumberedRecord(n, bytes));
    }
    return record != nullptr;
  }

  TempDirectory directory_;
  ResultCacheOptions options_;
  std::unique_ptr<ResultCache> cache_;
};

TEST_F(ResultCacheTest, ReturnsWhatWasPut) {
  Put(1);
  cache_->Flush();
  EXPECT_TRUE(Has(1));
  EXPECT_FALSE(Has(2));
}

TEST_F(ResultCacheTest, EveryDtypeAndEmptyShapesComeBack) {
  Record record;
  for (int dtype = 1; dtype <= 7; ++dtype) {
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{}, {0}, {4, 0}, {2, 3}}) {
      Array array{static_cast<DType>(dtype), shape, ""};
      array.bytes.resize(*ByteSize(array.dtype, shape), 'q');
      record.push_back(array);
    }
  }
  cache_->Put(NumberedKey(1), std::make_shared<const Record>(record));
  cache_->Put(NumberedKey(2), std::make_shared<const Record>());
  cache_->Flush();
  ASSERT_NE(cache_->Get(NumberedKey(1)), nullptr);
  EXPECT_EQ(*cache_->Get(NumberedKey(1)), record);
  ASSERT_NE(cache_->Get(NumberedKey(2)), nullptr);
  EXPECT_TRUE(cache_->Get(NumberedKey(2))->empty());
}

TEST_F(ResultCacheTest, ScopeAndOperationArePartOfTheKey) {
  CacheKey key = NumberedKey(1);
  cache_->Put(key, NumberedRecord(1));
  cache_->Flush();
  ++key.scope;
  EXPECT_EQ(cache_->Get(key), nullptr);
  --key.scope;
  ++key.operation;
  EXPECT_EQ(cache_->Get(key), nullptr);
}

TEST_F(ResultCacheTest, TheLastPutWins) {
  cache_->Put(NumberedKey(1), NumberedRecord(2));
  Put(1);
  cache_->Flush();
  EXPECT_TRUE(Has(1));
}

TEST_F(ResultCacheTest, SurvivesReopening) {
  for (int round = 0; round < 3; ++round) {
    for (uint64_t n = 0; n < 20; ++n) Put(round * 20 + n);
    Open();  // the destructor writes what is queued
    for (int n = 0; n < (round + 1) * 20; ++n) EXPECT_TRUE(Has(n)) << n;
  }
  EXPECT_EQ(cache_->MovedAsideTo(), "");
}

TEST_F(ResultCacheTest, TheDirectoryIsPrivate) {
  struct stat status;
  ASSERT_EQ(::stat(options_.directory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  ASSERT_EQ(::stat((directory_ / "deep").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  // Also when it was not made so.
  ASSERT_EQ(::chmod(options_.directory.c_str(), 0755), 0);
  Open();
  ASSERT_EQ(::stat(options_.directory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(ResultCacheTest, ASecondCacheOnTheDirectoryIsRefused) {
  Put(1);
  cache_->Flush();
  const absl::Status status = ResultCache::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(options_.directory));
  EXPECT_TRUE(Has(1));
  Put(2);
  cache_->Flush();
  EXPECT_TRUE(Has(2));
}

TEST_F(ResultCacheTest, AFileInTheDirectorysPlaceIsAnError) {
  options_.directory = directory_ / "file";
  WriteFile(options_.directory, "precious");
  const absl::Status status = ResultCache::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(options_.directory));
  EXPECT_EQ(ReadFile(options_.directory), "precious");
  options_.directory = directory_ / "file/below";
  EXPECT_FALSE(ResultCache::Open(options_).ok());
}

TEST_F(ResultCacheTest, ClearDropsEverythingAndFreesTheDisk) {
  for (uint64_t n = 0; n < 40; ++n) Put(n, 100000);
  cache_->Flush();
  EXPECT_GT(cache_->GetStatistics().disk_bytes, 40 * 100000);
  cache_->Clear();
  for (uint64_t n = 0; n < 40; ++n) EXPECT_FALSE(Has(n, 100000)) << n;
  EXPECT_LT(cache_->GetStatistics().disk_bytes, 100000);
  Put(1);
  cache_->Flush();
  EXPECT_TRUE(Has(1));
  Open();
  EXPECT_TRUE(Has(1));
  EXPECT_FALSE(Has(2));
}

TEST_F(ResultCacheTest, ClearDropsWhatIsStillQueued) {
  options_.memory_bytes = 1 << 20;
  Open();
  for (uint64_t n = 0; n < 40; ++n) Put(n);
  cache_->Clear();
  for (uint64_t n = 0; n < 40; ++n) EXPECT_FALSE(Has(n)) << n;
}

TEST_F(ResultCacheTest, ClearScopeLeavesTheOthers) {
  options_.memory_bytes = 20000;  // some in memory, some only on disk
  Open();
  for (uint64_t n = 0; n < 40; ++n) Put(n);
  cache_->ClearScope(3);
  for (uint64_t n = 0; n < 40; ++n) EXPECT_EQ(Has(n), n % 4 != 3) << n;
  Put(3);
  cache_->Flush();
  Open();
  for (uint64_t n = 0; n < 40; ++n) {
    EXPECT_EQ(Has(n), n % 4 != 3 || n == 3) << n;
  }
}

TEST_F(ResultCacheTest, TheHotTierServesWithoutTheDisk) {
  options_.memory_bytes = 1 << 20;
  Open();
  Put(1);
  EXPECT_TRUE(Has(1));  // queued or written, it is found
  const std::shared_ptr<const Record> first = cache_->Get(NumberedKey(1));
  EXPECT_EQ(cache_->Get(NumberedKey(1)), first);  // shared, not copied
  Open();
  EXPECT_TRUE(Has(1));  // from disk
  EXPECT_TRUE(Has(1));
  const ResultCacheStatistics statistics = cache_->GetStatistics();
  EXPECT_EQ(statistics.hits, 2);
  EXPECT_EQ(statistics.memory_hits, 1);
  EXPECT_GT(statistics.memory_bytes, 1000);
}

TEST_F(ResultCacheTest, CountsEveryGetAndEveryPut) {
  options_.max_record_bytes = 5000;
  options_.memory_bytes = 1 << 20;
  Open();
  for (uint64_t n = 0; n < 10; ++n) Put(n);
  Put(10, 6000);  // too large
  auto invalid = std::make_shared<Record>(*NumberedRecord(11));
  (*invalid)[0].bytes.pop_back();
  cache_->Put(NumberedKey(11), invalid);
  auto many = std::make_shared<Record>();
  many->push_back(
      Array{DType::kInt32, std::vector<int64_t>(300, 1), std::string(4, 'x')});
  cache_->Put(NumberedKey(12), many);  // more dimensions than the format has
  cache_->Flush();
  for (uint64_t n = 0; n < 12; ++n) EXPECT_EQ(Has(n), n < 10);
  const ResultCacheStatistics statistics = cache_->GetStatistics();
  EXPECT_EQ(statistics.hits, 10);
  EXPECT_EQ(statistics.misses, 2);
  EXPECT_EQ(statistics.inserts, 10);
  EXPECT_EQ(statistics.dropped_inserts, 3);
  EXPECT_EQ(statistics.corrupt_records, 0);
  EXPECT_EQ(statistics.read_errors, 0);
  EXPECT_EQ(statistics.write_errors, 0);
  EXPECT_EQ(statistics.capacity_bytes, 64 << 20);
  EXPECT_EQ(statistics.estimated_entries, 10);
  EXPECT_GT(statistics.disk_bytes, 10 * 1000);
}

TEST_F(ResultCacheTest, AFullQueueDropsAndCounts) {
  options_.write_queue_bytes = 150000;
  Open();
  for (uint64_t n = 0; n < 200; ++n) Put(n, 100000);
  cache_->Flush();
  const ResultCacheStatistics statistics = cache_->GetStatistics();
  EXPECT_EQ(statistics.inserts + statistics.dropped_inserts, 200);
  EXPECT_GE(statistics.inserts, 1);  // an empty queue takes one
  int64_t found = 0;
  for (uint64_t n = 0; n < 200; ++n) found += Has(n, 100000);
  EXPECT_EQ(found, statistics.inserts);
  // And none at all where a record alone exceeds the queue.
  Put(1000, 200000);
  cache_->Flush();
  EXPECT_FALSE(Has(1000, 200000));
}

TEST_F(ResultCacheTest, TheDiskStaysBelowTheCap) {
  constexpr size_t kRecord = 64 << 10;
  constexpr int64_t kCap = 4 << 20;
  // The information log, manifests and options are not the cache's content.
  constexpr int64_t kOverhead = 256 << 10;
  options_.capacity_bytes = kCap;
  Open();
  std::atomic<bool> writing{true};
  int64_t peak = 0;
  std::thread observer([&] {
    while (writing) {
      peak = std::max(peak, BytesIn(options_.directory));
    }
  });
  constexpr uint64_t kRecords = 10 * kCap / kRecord;
  for (uint64_t n = 0; n < kRecords; ++n) Put(n, kRecord);
  cache_->Flush();
  writing = false;
  observer.join();
  RecordProperty("peak_bytes", static_cast<int>(peak));
  EXPECT_LE(peak, kCap + kOverhead);
  EXPECT_LE(cache_->GetStatistics().disk_bytes, kCap);
  EXPECT_GT(cache_->GetStatistics().disk_bytes, kCap / 4);
  // The newest are there, the oldest are not.
  EXPECT_TRUE(Has(kRecords - 1, kRecord));
  EXPECT_TRUE(Has(kRecords - 20, kRecord));
  EXPECT_FALSE(Has(0, kRecord));
  EXPECT_FALSE(Has(kRecords / 2, kRecord));
  EXPECT_EQ(cache_->GetStatistics().inserts, static_cast<int64_t>(kRecords));
}

TEST_F(ResultCacheTest, ARecordThatWouldEmptyASmallCacheIsDropped) {
  options_.capacity_bytes = 8 << 20;
  Open();
  Put(1, 3 << 20);
  Put(2, 1 << 20);
  cache_->Flush();
  EXPECT_FALSE(Has(1, 3 << 20));
  EXPECT_TRUE(Has(2, 1 << 20));
}

// RocksDB would otherwise expire records after 30 days, and blob files are not
// counted against the cap.
TEST_F(ResultCacheTest, NothingExpires) {
  std::string stored;
  for (const std::string& file : ListFiles(options_.directory)) {
    if (file.find("/OPTIONS-") != std::string::npos) stored = ReadFile(file);
  }
  const size_t family = stored.find("[CFOptions \"results\"]");
  ASSERT_NE(family, std::string::npos);
  const std::string results = stored.substr(family);
  EXPECT_THAT(results, HasSubstr("\n  ttl=0\n"));
  EXPECT_THAT(results, HasSubstr("\n  periodic_compaction_seconds=0\n"));
  EXPECT_THAT(results, HasSubstr("compaction_style=kCompactionStyleFIFO"));
  EXPECT_THAT(results, HasSubstr("enable_blob_files=false"));
}

TEST_F(ResultCacheTest, ThreadsShareIt) {
  options_.memory_bytes = 20000;
  Open();
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < 300; ++i) {
        const uint64_t n = (i * 5 + t) % 60;
        if (!Has(n)) Put(n);
        if (i % 100 == 50) cache_->ClearScope(t);
        if (i % 150 == 149 && t == 0) cache_->Clear();
        if (i % 100 == 99) cache_->Flush();
        EXPECT_GE(cache_->GetStatistics().hits, 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const ResultCacheStatistics statistics = cache_->GetStatistics();
  EXPECT_EQ(statistics.hits + statistics.misses, 4 * 300);
  EXPECT_EQ(statistics.corrupt_records, 0);
  EXPECT_EQ(statistics.write_errors, 0);
}

// What a Clear dropped must not come back through a reader who was on his way.
TEST_F(ResultCacheTest, ClearedRecordsStayAwayFromReaders) {
  options_.memory_bytes = 1 << 20;
  Open();
  std::atomic<bool> reading{true};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&] {
      while (reading) {
        for (uint64_t n = 0; n < 8; ++n) Has(n);
      }
    });
  }
  for (int round = 0; round < 40; ++round) {
    for (uint64_t n = 0; n < 8; ++n) Put(n);
    if (round % 2 == 0) {
      cache_->Clear();
    } else {
      for (uint64_t scope = 0; scope < 4; ++scope) cache_->ClearScope(scope);
    }
    for (uint64_t n = 0; n < 8; ++n) EXPECT_FALSE(Has(n)) << n;
  }
  reading = false;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace cupola::storage
