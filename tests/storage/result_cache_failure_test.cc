// The result cache on damaged files, failing disks and after kills, in the
// manner of leveldb's corruption and fault injection tests: whatever happens,
// no answer is wrong, and a cache that opens is a cache that works.

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/result_cache.h"
#include "storage/result_cache_peer.h"
#include "tests/storage/fault_env.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint64_t kRecords = 100;

ResultCacheOptions OptionsFor(const std::string& directory) {
  ResultCacheOptions options;
  options.directory = directory;
  options.capacity_bytes = 64 << 20;
  options.memory_bytes = 0;
  return options;
}

std::unique_ptr<ResultCache> Open(const std::string& directory) {
  absl::StatusOr<std::unique_ptr<ResultCache>> cache =
      ResultCache::Open(OptionsFor(directory));
  EXPECT_TRUE(cache.ok()) << cache.status();
  return cache.ok() ? *std::move(cache) : nullptr;
}

// How many of the first `count` records are there; those that are, are right.
int64_t CountRight(ResultCache* cache, uint64_t count = kRecords) {
  int64_t right = 0;
  for (uint64_t n = 0; n < count; ++n) {
    const std::shared_ptr<const Record> record = cache->Get(NumberedKey(n));
    if (record == nullptr) continue;
    EXPECT_EQ(*record, *NumberedRecord(n)) << "a wrong answer for " << n;
    ++right;
  }
  return right;
}

void ExpectTakesRecords(ResultCache* cache) {
  for (uint64_t n : {uint64_t{0}, uint64_t{5000}}) {
    cache->Put(NumberedKey(n), NumberedRecord(n));
    cache->Flush();
    const std::shared_ptr<const Record> record = cache->Get(NumberedKey(n));
    ASSERT_NE(record, nullptr);
    EXPECT_EQ(*record, *NumberedRecord(n));
  }
}

// A directory with kRecords records, half of them in table files and half in
// the write-ahead log.
class DamageTest : public testing::Test {
 protected:
  DamageTest()
      : template_(directory_ / "template"), work_(directory_ / "work") {
    for (uint64_t half : {uint64_t{0}, kRecords / 2}) {
      std::unique_ptr<ResultCache> cache = Open(template_);
      for (uint64_t n = half; n < half + kRecords / 2; ++n) {
        cache->Put(NumberedKey(n), NumberedRecord(n));
      }
    }
  }

  // A fresh copy of the template.
  void Restore() {
    fs::remove_all(work_);
    fs::copy(template_, work_);
  }

  // The template's file names whose name begins or ends with `part`.
  std::vector<std::string> Names(const std::string& part) {
    std::vector<std::string> names;
    for (const std::string& path : ListFiles(template_)) {
      const std::string name = fs::path(path).filename();
      if (name.find(part) != std::string::npos) names.push_back(name);
    }
    return names;
  }

  // Opens the damaged copy, checks the promises and returns how many of the
  // records were found.
  int64_t Check(int64_t* corrupt = nullptr) {
    std::unique_ptr<ResultCache> cache = Open(work_);
    if (cache == nullptr) return -1;
    const int64_t right = CountRight(cache.get());
    if (corrupt != nullptr) *corrupt = cache->GetStatistics().corrupt_records;
    ExpectTakesRecords(cache.get());
    return right;
  }

  TempDirectory directory_;
  const std::string template_, work_;
};

TEST_F(DamageTest, UndamagedItIsComplete) {
  ASSERT_FALSE(Names(".sst").empty());
  ASSERT_FALSE(Names(".log").empty());
  Restore();
  EXPECT_EQ(Check(), static_cast<int64_t>(kRecords));
}

TEST_F(DamageTest, FlippedBytesInTableFiles) {
  std::mt19937 random(1);
  int64_t lost_some = 0, counted = 0;
  for (int round = 0; round < 25; ++round) {
    Restore();
    for (const std::string& name : Names(".sst")) {
      std::string bytes = ReadFile(work_ + "/" + name);
      for (int flip = 0; flip < 3; ++flip) {
        bytes[random() % bytes.size()] ^= 1 + random() % 255;
      }
      WriteFile(work_ + "/" + name, bytes);
    }
    int64_t corrupt = 0;
    const int64_t right = Check(&corrupt);
    lost_some += right > 0 && right < static_cast<int64_t>(kRecords);
    counted += corrupt;
  }
  // Most flips hit a few records, which are missed and counted.
  EXPECT_GT(lost_some, 12);
  EXPECT_GT(counted, 12);
}

TEST_F(DamageTest, FlippedBytesInTheLog) {
  std::mt19937 random(2);
  for (int round = 0; round < 20; ++round) {
    Restore();
    for (const std::string& name : Names(".log")) {
      std::string bytes = ReadFile(work_ + "/" + name);
      if (bytes.empty()) continue;
      for (int flip = 0; flip < 3; ++flip) {
        bytes[random() % bytes.size()] ^= 1 + random() % 255;
      }
      WriteFile(work_ + "/" + name, bytes);
    }
    // What the tables hold is not the log's to lose.
    EXPECT_GE(Check(), static_cast<int64_t>(kRecords / 2));
  }
}

TEST_F(DamageTest, FlippedBytesInEveryOtherFile) {
  std::mt19937 random(3);
  for (const std::string& path : ListFiles(template_)) {
    const std::string name = fs::path(path).filename();
    for (int round = 0; round < 3; ++round) {
      Restore();
      std::string bytes = ReadFile(work_ + "/" + name);
      if (bytes.empty()) continue;
      bytes[random() % bytes.size()] ^= 1 + random() % 255;
      WriteFile(work_ + "/" + name, bytes);
      SCOPED_TRACE(name);
      EXPECT_GE(Check(), 0);
    }
  }
}

TEST_F(DamageTest, TruncatedEmptiedAndMissingFiles) {
  for (const std::string& path : ListFiles(template_)) {
    const std::string name = fs::path(path).filename();
    const int64_t size = fs::file_size(path);
    SCOPED_TRACE(name);
    for (int64_t left : {size / 2, size - 1, int64_t{0}, int64_t{-1}}) {
      Restore();
      if (left >= 0) {
        fs::resize_file(work_ + "/" + name, left);
      } else {
        fs::remove(work_ + "/" + name);
      }
      EXPECT_GE(Check(), 0);
    }
  }
}

TEST_F(DamageTest, GarbageFilesAreNoConcern) {
  Restore();
  const std::string garbage(3000, '\x5a');
  for (const char* name : {"999991.sst", "999992.log", "notes.txt", "LOG.old",
                           "MANIFEST-999993", "OPTIONS-999994", "x.blob"}) {
    WriteFile(work_ + "/" + name, garbage);
  }
  EXPECT_EQ(Check(), static_cast<int64_t>(kRecords));
}

// RocksDB cannot remove it and does not open.
TEST_F(DamageTest, ADirectoryInATablesPlace) {
  Restore();
  fs::create_directory(work_ + "/999995.sst");
  EXPECT_GE(Check(), 0);
}

TEST_F(DamageTest, NothingButGarbage) {
  fs::create_directory(work_);
  for (const char* name : {"CURRENT", "MANIFEST-000001", "000002.sst"}) {
    WriteFile(work_ + "/" + name, std::string(1000, '\x5a'));
  }
  EXPECT_EQ(Check(), 0);
}

TEST_F(DamageTest, WhatCannotBeOpenedIsMovedAsideWhole) {
  Restore();
  const std::string manifest = Names("MANIFEST").front();
  WriteFile(work_ + "/" + manifest, "garbage");
  ResultCacheOptions options = OptionsFor(work_);
  options.now = [] { return absl::FromUnixSeconds(1700000000); };
  {
    absl::StatusOr<std::unique_ptr<ResultCache>> cache =
        ResultCache::Open(options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    EXPECT_EQ((*cache)->MovedAsideTo(), work_ + ".corrupt-1700000000");
    EXPECT_EQ(CountRight(cache->get()), 0);
    ExpectTakesRecords(cache->get());
  }
  const std::string aside = work_ + ".corrupt-1700000000/";
  EXPECT_EQ(ReadFile(aside + manifest), "garbage");
  for (const std::string& name : Names(".sst")) {
    EXPECT_EQ(ReadFile(aside + name), ReadFile(template_ + "/" + name));
  }
  // A second one in the same second finds another name.
  WriteFile(work_ + "/CURRENT", "garbage");
  absl::StatusOr<std::unique_ptr<ResultCache>> cache =
      ResultCache::Open(options);
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_EQ((*cache)->MovedAsideTo(), work_ + ".corrupt-1700000000-1");
}

TEST_F(DamageTest, ADamagedRecordIsMissedDeletedCountedAndHealed) {
  Restore();
  // The middle of the largest table is in the block of some record.
  const std::string name = Names(".sst").front();
  std::string bytes = ReadFile(work_ + "/" + name);
  bytes[bytes.size() / 2] ^= 1;
  WriteFile(work_ + "/" + name, bytes);

  std::unique_ptr<ResultCache> cache = Open(work_);
  ASSERT_NE(cache, nullptr);
  std::vector<uint64_t> lost;
  for (uint64_t n = 0; n < kRecords; ++n) {
    if (cache->Get(NumberedKey(n)) == nullptr) lost.push_back(n);
  }
  ASSERT_FALSE(lost.empty());
  const int64_t corrupt = static_cast<int64_t>(lost.size());
  EXPECT_EQ(cache->GetStatistics().corrupt_records, corrupt);
  // Deleted: from now on an ordinary miss.
  cache->Flush();
  for (uint64_t n : lost) EXPECT_EQ(cache->Get(NumberedKey(n)), nullptr);
  EXPECT_EQ(cache->GetStatistics().corrupt_records, corrupt);
  for (uint64_t n : lost) cache->Put(NumberedKey(n), NumberedRecord(n));
  cache->Flush();
  EXPECT_EQ(CountRight(cache.get()), static_cast<int64_t>(kRecords));
}

// --- Failing disks -----------------------------------------------------------

// A clock that the test moves. The cache's is a plain function.
std::atomic<int64_t> fake_seconds{0};

class FaultTest : public testing::Test {
 protected:
  FaultTest() {
    fake_seconds = 1000000;
    options_ = OptionsFor(directory_ / "results");
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

// --- Kills -------------------------------------------------------------------

// A process that fills a cache until it is killed; see kill_writer.cc.
class Writer {
 public:
  Writer(const std::string& directory, uint64_t first) {
    int ends[2];
    if (::pipe(ends) != 0) std::abort();
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    ::posix_spawn_file_actions_addclose(&actions, ends[0]);
    std::string program = CUPOLA_KILL_WRITER, dir = directory,
                start = std::to_string(first);
    char* arguments[] = {program.data(), dir.data(), start.data(), nullptr};
    if (::posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments,
                      environ) != 0) {
      std::abort();
    }
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    pipe_ = ::fdopen(ends[0], "r");
  }
  ~Writer() {
    Kill();
    std::fclose(pipe_);
  }

  // The next number of records that are flushed; 0 at the end of the output.
  uint64_t NextFlushed() {
    unsigned long long flushed = 0;
    return std::fscanf(pipe_, "%llu\n", &flushed) == 1 ? flushed : 0;
  }

  void Kill() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  FILE* pipe_ = nullptr;
};

TEST(KillTest, WhatWasFlushedSurvives) {
  TempDirectory directory;
  const std::string results = directory / "results";
  uint64_t flushed = 0;
  std::mt19937 random(5);
  for (int round = 0; round < 4; ++round) {
    {
      Writer writer(results, flushed);
      const uint64_t enough = flushed + 200 + random() % 200;
      while (flushed < enough) {
        const uint64_t next = writer.NextFlushed();
        ASSERT_GT(next, 0u) << "the writer ended early";
        flushed = next;
      }
      writer.Kill();
      // What it said between the last line read and its end.
      while (const uint64_t next = writer.NextFlushed()) flushed = next;
    }
    std::unique_ptr<ResultCache> cache = Open(results);
    ASSERT_NE(cache, nullptr);
    EXPECT_EQ(cache->MovedAsideTo(), "");
    EXPECT_EQ(CountRight(cache.get(), flushed), static_cast<int64_t>(flushed));
    CountRight(cache.get(), flushed + 100);  // the rest is right or missing
    EXPECT_EQ(cache->GetStatistics().corrupt_records, 0);
  }
}

TEST(KillTest, AnotherProcessHoldsTheDirectoryUntilItIsKilled) {
  TempDirectory directory;
  const std::string results = directory / "results";
  Writer writer(results, 0);
  ASSERT_GT(writer.NextFlushed(), 0u);
  const absl::Status status = ResultCache::Open(OptionsFor(results)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              StartsWith(results + " is in use by another process"));
  EXPECT_GT(writer.NextFlushed(), 0u);  // and is not disturbed
  writer.Kill();
  EXPECT_NE(Open(results), nullptr);
}

}  // namespace
}  // namespace cupola::storage
