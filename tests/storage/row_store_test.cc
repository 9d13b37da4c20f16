#include "storage/row_store.h"

#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::storage {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

class RowStoreTest : public testing::Test {
 protected:
  RowStoreTest() : directory_(testing::TempDir() + "/rows") {
    fs::remove_all(directory_);
    store_ = *DurableStore::Open(directory_);
  }
  ~RowStoreTest() override {
    store_.reset();
    fs::remove_all(directory_);
  }

  void Write(const std::vector<std::string>& rows) {
    RowWriter writer(store_.get(), "a/");
    for (const std::string& row : rows) ASSERT_TRUE(writer.Append(row).ok());
    ASSERT_TRUE(writer.Finish().ok());
    EXPECT_EQ(writer.rows(), static_cast<int64_t>(rows.size()));
  }
  std::unique_ptr<RowReader> Open() {
    auto reader = RowReader::Open(store_.get(), "a/");
    EXPECT_TRUE(reader.ok()) << reader.status();
    return *std::move(reader);
  }

  const std::string directory_;
  std::unique_ptr<DurableStore> store_;
};

TEST_F(RowStoreTest, GivesBackEveryRange) {
  Write({"a", "", "ccc"});
  const auto reader = Open();
  EXPECT_EQ(reader->rows(), 3);
  EXPECT_THAT(*reader->Read(0, 3), ElementsAre("a", "", "ccc"));
  EXPECT_THAT(*reader->Read(1, 2), ElementsAre(""));
  EXPECT_THAT(*reader->Read(2, 2), ElementsAre());
  EXPECT_THAT(*reader->Lengths(), ElementsAre(1u, 0u, 3u));
}

TEST_F(RowStoreTest, CutsIntoBlocks) {
  std::vector<std::string> rows;
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    rows.emplace_back(random() % 200'000, static_cast<char>('a' + i % 26));
  }
  rows.emplace_back(3 * RowWriter::kBlockBytes, 'x');  // more than a block
  rows.emplace_back("end");
  Write(rows);
  const auto reader = Open();
  EXPECT_LT(reader->RowsInBlock(0), 60);
  for (int64_t at = 0; at < reader->rows(); at += reader->RowsInBlock(at)) {
    EXPECT_GT(reader->RowsInBlock(at), 0);
  }
  EXPECT_EQ(*reader->Read(0, 62), rows);
  EXPECT_EQ(*reader->Read(17, 33),
            std::vector<std::string>(rows.begin() + 17, rows.begin() + 33));
  EXPECT_EQ(reader->Lengths()->at(60), 3 * RowWriter::kBlockBytes);
}

TEST_F(RowStoreTest, WithoutItsIndexNothingIsThere) {
  RowWriter writer(store_.get(), "a/");
  ASSERT_TRUE(writer.Append("row").ok());
  EXPECT_EQ(RowReader::Open(store_.get(), "a/").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(RowStoreTest, DamageIsSaid) {
  Write({"one", "two"});
  const std::string index = *store_->Get("a/i"),
                    block = *store_->Get("a/b00000000");
  for (size_t i = 0; i < index.size(); ++i) {
    std::string damaged = index;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x40);
    ASSERT_TRUE(store_->Put("a/i", damaged).ok());
    const auto reader = RowReader::Open(store_.get(), "a/");
    if (reader.ok()) {
      EXPECT_EQ((*reader)->Read(0, (*reader)->rows()).status().code(),
                absl::StatusCode::kDataLoss);
      EXPECT_EQ((*reader)->Lengths().status().code(),
                absl::StatusCode::kDataLoss);
    } else {
      EXPECT_EQ(reader.status().code(), absl::StatusCode::kDataLoss);
    }
  }
  // Rows that nothing on the disk backs take no memory.
  for (const uint64_t rows : {uint64_t{3}, uint64_t{1} << 40}) {
    std::string many = index;
    std::memcpy(many.data(), &rows, sizeof(rows));
    ASSERT_TRUE(store_->Put("a/i", many).ok());
    const auto reader = RowReader::Open(store_.get(), "a/");
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ((*reader)->Lengths().status().code(),
              absl::StatusCode::kDataLoss);
  }
  ASSERT_TRUE(store_->Put("a/i", index).ok());
  const auto reader = Open();
  for (size_t size = 0; size < block.size(); ++size) {
    ASSERT_TRUE(store_->Put("a/b00000000", block.substr(0, size)).ok());
    EXPECT_EQ(reader->Read(0, 2).status().code(), absl::StatusCode::kDataLoss);
  }
  ASSERT_TRUE(store_->Put("a/l00000000", "").ok());
  EXPECT_EQ(reader->Lengths().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(RowStoreTest, APrefixIsDeletedAlone) {
  Write({"one"});
  ASSERT_TRUE(store_->Put("a", "kept").ok());
  ASSERT_TRUE(store_->Put("b", "kept").ok());
  ASSERT_TRUE(store_->Put("\xff\xff", "kept").ok());
  ASSERT_TRUE(store_->DeletePrefix("a/").ok());
  EXPECT_EQ(store_->Scan("")->size(), 3u);
  EXPECT_EQ(store_->DeletePrefix("").code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(RowStoreTest, WhatIsDeletedFreesTheDisk) {
  store_ = nullptr;
  store_ = *DurableStore::Open(directory_, DurableStore::Values::kBlocks);
  ASSERT_TRUE(store_->Put("z", "kept").ok());
  const auto size = [this] {
    uintmax_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      if (entry.path().extension() == ".sst") bytes += entry.file_size();
    }
    return bytes;
  };
  std::mt19937 random(1);
  for (int turn = 0; turn < 3; ++turn) {
    std::string row(1 << 20, ' ');
    for (char& c : row) c = static_cast<char>(random());
    Write(std::vector<std::string>(40, row));
    EXPECT_GT(size(), uintmax_t{8} << 20);
    ASSERT_TRUE(store_->DeletePrefix("a/").ok());
    // Files that are of no use any more are deleted in the background.
    const absl::Time limit = absl::Now() + absl::Seconds(30);
    while (size() > uintmax_t{1} << 20 && absl::Now() < limit) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    EXPECT_LT(size(), uintmax_t{1} << 20);
  }
  EXPECT_EQ(*store_->Get("z"), "kept");
}

TEST_F(RowStoreTest, FoldersAreListedOnce) {
  for (const char* key :
       {"a/1/x", "a/1/y", "a/10/x", "a/2/x/y", "a/3", "b/1/x", "a/1"}) {
    ASSERT_TRUE(store_->Put(key, "").ok());
  }
  EXPECT_THAT(*store_->Folders("a/"), ElementsAre("1", "10", "2"));
  EXPECT_THAT(*store_->Folders("c/"), ElementsAre());
}

TEST_F(RowStoreTest, ChangesAreMadeTogether) {
  ASSERT_TRUE(store_->Put("a", "1").ok());
  ASSERT_TRUE(store_->Apply({{"b", "2"}, {"a", {}}, {"c", ""}}).ok());
  EXPECT_EQ(store_->Get("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(*store_->Get("b"), "2");
  EXPECT_EQ(*store_->Get("c"), "");
}

}  // namespace
}  // namespace cupola::storage
