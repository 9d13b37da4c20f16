#include "storage/row_store.h"

#include <filesystem>
#include <random>
#include <string>
#include <vector>

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
    } else {
      EXPECT_EQ(reader.status().code(), absl::StatusCode::kDataLoss);
    }
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

}  // namespace
}  // namespace cupola::storage
