// The result cache on damaged files, in the manner of leveldb's corruption
// test: whatever the files hold, no answer is wrong, and a cache that opens
// works.

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "storage/result_cache.h"
#include "tests/storage/cache_test_util.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRecords = 100;

// A directory with kRecords records, half of them in table files and half in
// the write-ahead log.
class DamageTest : public testing::Test {
 protected:
  DamageTest()
      : template_(directory_ / "template"), work_(directory_ / "work") {
    for (uint64_t half : {uint64_t{0}, kRecords / 2}) {
      std::unique_ptr<ResultCache> cache = OpenCache(template_);
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

  // The names of the template's files that contain `part`.
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
    std::unique_ptr<ResultCache> cache = OpenCache(work_);
    if (cache == nullptr) return -1;
    const int64_t right = CountRight(cache.get(), kRecords);
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
  ResultCacheOptions options = CacheOptionsFor(work_);
  options.now = [] { return absl::FromUnixSeconds(1700000000); };
  {
    absl::StatusOr<std::unique_ptr<ResultCache>> cache =
        ResultCache::Open(options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    EXPECT_EQ((*cache)->MovedAsideTo(), work_ + ".corrupt-1700000000");
    EXPECT_EQ(CountRight(cache->get(), kRecords), 0);
    ExpectTakesRecords(cache->get());
  }
  const std::string aside = work_ + ".corrupt-1700000000/";
  EXPECT_EQ(ReadFile(aside + manifest), "garbage");
  for (const std::string& name : Names(".sst")) {
    EXPECT_EQ(ReadFile(aside + name), ReadFile(template_ + "/" + name));
  }
  // A second one in the same second finds another name, beside the first.
  WriteFile(work_ + "/CURRENT", "garbage");
  options.directory += "/";
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

  std::unique_ptr<ResultCache> cache = OpenCache(work_);
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
  EXPECT_EQ(CountRight(cache.get(), kRecords), static_cast<int64_t>(kRecords));
}

}  // namespace
}  // namespace cupola::storage
