#include "storage/durable_store.h"

#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class DurableStoreTest : public testing::Test {
 protected:
  DurableStoreTest() : path_(directory_ / "durable") { Open(); }

  void Open() {
    store_.reset();
    absl::StatusOr<std::unique_ptr<DurableStore>> store =
        DurableStore::Open(path_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  std::string Get(const std::string& key) {
    const absl::StatusOr<std::string> value = store_->Get(key);
    return value.ok() ? *value : std::string(value.status().message());
  }

  TempDirectory directory_;
  const std::string path_;
  std::unique_ptr<DurableStore> store_;
};

TEST_F(DurableStoreTest, GetPutDelete) {
  EXPECT_EQ(store_->Get("a/1").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(store_->Put("a/1", "one").ok());
  EXPECT_EQ(Get("a/1"), "one");
  ASSERT_TRUE(store_->Put("a/1", "uno").ok());
  EXPECT_EQ(Get("a/1"), "uno");
  ASSERT_TRUE(store_->Delete("a/1").ok());
  EXPECT_EQ(store_->Get("a/1").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->Delete("a/1").ok());
}

TEST_F(DurableStoreTest, KeysAndValuesAreAnyBytes) {
  const std::string key("a/\0\xff", 4), value("\0\n\xff", 3);
  ASSERT_TRUE(store_->Put(key, value).ok());
  ASSERT_TRUE(store_->Put("empty", "").ok());
  EXPECT_EQ(Get(key), value);
  EXPECT_EQ(Get("empty"), "");
}

TEST_F(DurableStoreTest, ScanListsOneUseInOrder) {
  ASSERT_TRUE(store_->Put("b/2", "z").ok());
  ASSERT_TRUE(store_->Put("b/1", "y").ok());
  ASSERT_TRUE(store_->Put("a/1", "x").ok());
  ASSERT_TRUE(store_->Put("ba/1", "w").ok());
  EXPECT_THAT(*store_->Scan("b/"),
              ElementsAre(Pair("b/1", "y"), Pair("b/2", "z")));
  EXPECT_THAT(*store_->Scan(""),
              ElementsAre(Pair("a/1", "x"), Pair("b/1", "y"), Pair("b/2", "z"),
                          Pair("ba/1", "w")));
  EXPECT_THAT(*store_->Scan("c"), IsEmpty());
}

TEST_F(DurableStoreTest, SurvivesReopening) {
  for (int i = 0; i < 5; ++i) {
    const std::string number = std::to_string(i);
    ASSERT_TRUE(store_->Put("k/" + number, number).ok());
    Open();
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Get("k/" + std::to_string(i)), std::to_string(i));
  }
}

// The files as they are after a Put, without a regular end: what a crash
// leaves.
TEST_F(DurableStoreTest, WhatWasPutSurvivesACrash) {
  ASSERT_TRUE(store_->Put("k", "value").ok());
  ASSERT_TRUE(store_->Put("gone", "value").ok());
  ASSERT_TRUE(store_->Delete("gone").ok());
  const std::string copy = directory_ / "copy";
  fs::copy(path_, copy);
  absl::StatusOr<std::unique_ptr<DurableStore>> store =
      DurableStore::Open(copy);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(*(*store)->Get("k"), "value");
  EXPECT_EQ((*store)->Get("gone").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(DurableStoreTest, TheDirectoryIsPrivate) {
  struct stat status;
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(DurableStoreTest, ASecondStoreOnTheDirectoryIsRefused) {
  ASSERT_TRUE(store_->Put("k", "value").ok());
  const absl::Status status = DurableStore::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_EQ(Get("k"), "value");
}

// Damage is an error, never an older or another value, and nothing is moved.
TEST_F(DurableStoreTest, DamageIsAnErrorThatNamesTheDirectory) {
  const std::string value(2000, 'v');
  for (int half = 0; half < 2; ++half) {
    for (int i = half * 20; i < half * 20 + 20; ++i) {
      ASSERT_TRUE(store_->Put("k/" + std::to_string(i), value).ok());
    }
    if (half == 0) Open();  // into a table file; the second half in the log
  }
  store_.reset();
  std::mt19937 random(7);
  const std::string copy = directory_ / "copy";
  int refused = 0;
  for (const std::string& file : ListFiles(path_)) {
    const std::string name = fs::path(file).filename();
    // Neither holds data: RocksDB replaces them.
    if (name.find("LOG") == 0 || name.find("LOCK") == 0) continue;
    for (int round = 0; round < 6; ++round) {
      fs::remove_all(copy);
      fs::copy(path_, copy);
      std::string bytes = ReadFile(copy + "/" + name);
      if (bytes.empty()) continue;
      bytes[random() % bytes.size()] ^= 1 + random() % 255;
      WriteFile(copy + "/" + name, bytes);
      SCOPED_TRACE(name);

      absl::StatusOr<std::unique_ptr<DurableStore>> store =
          DurableStore::Open(copy);
      if (!store.ok()) {
        ++refused;
        EXPECT_THAT(std::string(store.status().message()), HasSubstr(copy));
        EXPECT_TRUE(fs::exists(copy + "/" + name));
        continue;
      }
      for (int i = 0; i < 40; ++i) {
        const absl::StatusOr<std::string> read =
            (*store)->Get("k/" + std::to_string(i));
        if (read.ok()) {
          EXPECT_EQ(*read, value);
        } else {
          ++refused;
          EXPECT_THAT(std::string(read.status().message()), HasSubstr(copy));
        }
      }
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_EQ(fs::exists(copy + ".corrupt"), false);
}

TEST_F(DurableStoreTest, AFileInTheDirectorysPlaceIsAnError) {
  const std::string file = directory_ / "file";
  WriteFile(file, "precious");
  const absl::Status status = DurableStore::Open(file).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(file));
  EXPECT_EQ(ReadFile(file), "precious");
  EXPECT_FALSE(DurableStore::Open("").ok());
}

TEST_F(DurableStoreTest, ThreadsShareIt) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 20; ++i) {
        const std::string key = std::to_string(t) + "/" + std::to_string(i);
        EXPECT_TRUE(store_->Put(key, key).ok());
        EXPECT_EQ(Get(key), key);
        EXPECT_TRUE(store_->Scan("").ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->Scan("")->size(), 80u);
}

}  // namespace
}  // namespace cupola::storage
