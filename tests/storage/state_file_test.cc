#include "storage/state_file.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class StateFileTest : public testing::Test {
 protected:
  StateFileTest() : path_(directory_ / "state") {}

  absl::Status WriteState(const std::string& body, int64_t chunks) {
    StateHeader header{"sum", 3, {}, chunks};
    header.identity[5] = 42;
    auto writer = StateWriter::Create(path_, header);
    if (!writer.ok()) return writer.status();
    if (absl::Status s = (*writer)->Append(body.data(), body.size()); !s.ok())
      return s;
    return (*writer)->Commit();
  }

  TempDirectory directory_;
  const std::string path_;
};

TEST_F(StateFileTest, ReadsWhatWasCommitted) {
  const std::string body(3 << 20, 'x');
  ASSERT_TRUE(WriteState(body, 7).ok());
  const auto reader = StateReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->header().kind, "sum");
  EXPECT_EQ((*reader)->header().version, 3u);
  EXPECT_EQ((*reader)->header().identity[5], 42);
  EXPECT_EQ((*reader)->header().chunks, 7);
  EXPECT_EQ((*reader)->left(), body.size());
  std::string read(body.size(), ' ');
  ASSERT_TRUE((*reader)->Read(read.data(), read.size()).ok());
  EXPECT_EQ(read, body);
  EXPECT_EQ((*reader)->left(), 0u);
  char more;
  EXPECT_EQ((*reader)->ReadValue(&more).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(fs::exists(path_ + ".part"));
}

TEST_F(StateFileTest, AnEmptyBodyIsOne) {
  ASSERT_TRUE(WriteState("", 0).ok());
  const auto reader = StateReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->left(), 0u);
}

TEST_F(StateFileTest, TheLastCommitCounts) {
  ASSERT_TRUE(WriteState("first", 1).ok());
  ASSERT_TRUE(WriteState("second", 2).ok());
  EXPECT_EQ((*StateReader::Open(path_))->header().chunks, 2);
}

TEST_F(StateFileTest, WhatIsNotCommittedLeavesNothing) {
  ASSERT_TRUE(WriteState("kept", 1).ok());
  {
    auto writer = StateWriter::Create(path_, {"sum", 3, {}, 2});
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->AppendValue(1.5).ok());
  }
  EXPECT_FALSE(fs::exists(path_ + ".part"));
  EXPECT_EQ((*StateReader::Open(path_))->header().chunks, 1);
}

TEST_F(StateFileTest, AMissingFileIsNotFound) {
  EXPECT_EQ(StateReader::Open(path_).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(StateFileTest, EveryFlippedByteShows) {
  ASSERT_TRUE(WriteState("body", 1).ok());
  std::string bytes;
  {
    std::ifstream in(path_, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] ^= 0x10;
    std::ofstream(path_, std::ios::binary) << damaged;
    const auto reader = StateReader::Open(path_);
    ASSERT_FALSE(reader.ok()) << "byte " << i;
    EXPECT_EQ(reader.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(reader.status().message()), HasSubstr(path_));
  }
}

TEST_F(StateFileTest, EveryCutShows) {
  ASSERT_TRUE(WriteState("body", 1).ok());
  for (int64_t size = static_cast<int64_t>(fs::file_size(path_)) - 1; size >= 0;
       --size) {
    fs::resize_file(path_, size);
    EXPECT_EQ(StateReader::Open(path_).status().code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST_F(StateFileTest, AFullDiskIsToldAndTheOldStateStays) {
  ASSERT_TRUE(WriteState("kept", 1).ok());
  const std::string full = "/dev/full";
  if (!fs::exists(full)) GTEST_SKIP() << "no /dev/full here";
  fs::create_symlink(full, path_ + ".part");
  const absl::Status status = WriteState(std::string(4 << 20, 'y'), 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ((*StateReader::Open(path_))->header().chunks, 1);
}

}  // namespace
}  // namespace cupola::storage
