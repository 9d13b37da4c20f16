#include "storage/chunk_file.h"

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ChunkFileTest : public testing::Test {
 protected:
  ChunkFileTest() : path_(directory_ / "chunks") {}

  std::unique_ptr<ChunkFile> Make(absl::string_view about = "about it") {
    auto file = ChunkFile::Create(path_, about);
    EXPECT_TRUE(file.ok()) << file.status();
    return *std::move(file);
  }
  std::unique_ptr<ChunkFile> Reopen() {
    auto file = ChunkFile::Open(path_);
    EXPECT_TRUE(file.ok()) << file.status();
    return *std::move(file);
  }
  static std::string Payload(int64_t number) {
    return std::string(100 + 7 * number, static_cast<char>('a' + number));
  }
  static void Fill(ChunkFile* file, std::initializer_list<int64_t> numbers) {
    for (const int64_t number : numbers) {
      const absl::Status status =
          file->Append(number, 10 + number, Payload(number));
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  void Flip(int64_t offset) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const char byte = static_cast<char>(file.get() ^ 64);
    file.seekp(offset);
    file.put(byte);
  }

  TempDirectory directory_;
  const std::string path_;
};

TEST_F(ChunkFileTest, ChunksInAnyOrderAreReadByNumber) {
  auto file = Make();
  Fill(file.get(), {4, 0, 2});
  ASSERT_TRUE(file->Sync().ok());
  const int64_t bytes = file->bytes();
  EXPECT_EQ(bytes, static_cast<int64_t>(fs::file_size(path_)));
  for (int turn = 0; turn < 2; ++turn, file = Reopen()) {
    EXPECT_EQ(file->about(), "about it");
    EXPECT_EQ(file->chunks(), 3);
    EXPECT_EQ(file->bytes(), bytes);
    for (const int64_t number : {0, 2, 4}) {
      const auto read = file->Read(number);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(*read, Payload(number));
      EXPECT_EQ(file->Sizes()[number].items, 10 + number);
      EXPECT_TRUE(file->Has(number));
    }
    EXPECT_EQ(file->Sizes()[1].items, 0);
    for (const int64_t number : {-1, 1, 3, 5}) {
      EXPECT_FALSE(file->Has(number));
      EXPECT_TRUE(absl::IsNotFound(file->Read(number).status()));
    }
  }
}

TEST_F(ChunkFileTest, TheLastOfOneNumberCounts) {
  auto file = Make();
  Fill(file.get(), {1});
  ASSERT_TRUE(file->Append(1, 3, "new").ok());
  for (int turn = 0; turn < 2; ++turn, file = Reopen()) {
    EXPECT_EQ(file->chunks(), 1);
    EXPECT_EQ(*file->Read(1), "new");
    EXPECT_EQ(file->Sizes()[1].items, 3);
  }
}

// Whatever a killed process has left of the last chunk, those before it are
// there, and others can follow.
TEST_F(ChunkFileTest, WhatIsCutOffAnywhereIsGoneAlone) {
  auto file = Make();
  Fill(file.get(), {0, 1});
  const auto good = file->bytes();
  Fill(file.get(), {2});
  const auto whole = file->bytes();
  file.reset();
  const fs::path copy = directory_ / "copy";
  fs::copy_file(path_, copy);
  for (int64_t bytes = good; bytes < whole; ++bytes) {
    fs::copy_file(copy, path_, fs::copy_options::overwrite_existing);
    fs::resize_file(path_, bytes);
    file = Reopen();
    ASSERT_EQ(file->chunks(), 2) << bytes;
    ASSERT_EQ(file->bytes(), good);
    Fill(file.get(), {5});
    file = Reopen();
    ASSERT_EQ(file->chunks(), 3);
    ASSERT_EQ(*file->Read(5), Payload(5));
    ASSERT_EQ(*file->Read(1), Payload(1));
  }
}

// As a server that is killed leaves it: payloads are written before headers.
TEST_F(ChunkFileTest, APayloadWithoutItsHeaderIsCutOff) {
  auto file = Make();
  Fill(file.get(), {0, 1});
  const auto good = file->bytes();
  file.reset();
  fs::resize_file(path_, good + 40);
  std::ofstream(path_, std::ios::app | std::ios::binary) << Payload(2);
  file = Reopen();
  EXPECT_EQ(file->chunks(), 2);
  EXPECT_EQ(fs::file_size(path_), static_cast<uint64_t>(good));
}

TEST_F(ChunkFileTest, DamageIsTold) {
  auto file = Make();
  const int64_t header = file->bytes();
  Fill(file.get(), {0, 1});
  const int64_t of_second = header + 40 + 100;
  file.reset();
  Flip(header + 40 + 50);  // within the first payload
  file = Reopen();
  EXPECT_EQ(file->chunks(), 2);
  EXPECT_TRUE(absl::IsDataLoss(file->Read(0).status()));
  EXPECT_THAT(file->Read(0).status().message(), HasSubstr("in chunk 0"));
  EXPECT_TRUE(file->Read(1).ok());
  file.reset();
  const auto whole = fs::file_size(path_);
  for (const int64_t at : {header, of_second}) {
    Flip(at + 16);  // a chunk header's size
    const absl::Status status = ChunkFile::Open(path_).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(fs::file_size(path_), whole);
    Flip(at + 16);
    EXPECT_EQ(Reopen()->chunks(), 2);
  }
  for (int64_t i = 0; i < header; ++i) {
    Flip(i);
    EXPECT_TRUE(absl::IsDataLoss(ChunkFile::Open(path_).status())) << i;
    Flip(i);
  }
  fs::resize_file(path_, 10);
  EXPECT_TRUE(absl::IsDataLoss(ChunkFile::Open(path_).status()));
}

TEST_F(ChunkFileTest, RefusesWhatIsNotTaken) {
  EXPECT_TRUE(absl::IsNotFound(ChunkFile::Open(path_).status()));
  auto file = Make("");
  EXPECT_TRUE(absl::IsAlreadyExists(ChunkFile::Create(path_, "").status()));
  EXPECT_EQ(Reopen()->about(), "");
  for (const int64_t number : {int64_t{-1}, ChunkFile::kMaxChunks}) {
    EXPECT_TRUE(absl::IsInvalidArgument(file->Append(number, 1, "x")));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(file->Append(0, -1, "x")));
  const std::string long_about(ChunkFile::kMaxAboutBytes + 1, ' ');
  EXPECT_TRUE(absl::IsInvalidArgument(
      ChunkFile::Create(path_ + "2", long_about).status()));
  EXPECT_FALSE(fs::exists(path_ + "2"));
}

// A file that may not grow looks like a full disk.
TEST_F(ChunkFileTest, AFullDiskLeavesWhatIsThere) {
  auto file = Make();
  Fill(file.get(), {0});
  const int64_t bytes = file->bytes();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignored = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{static_cast<rlim_t>(bytes) + 60, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status full = file->Append(1, 1, Payload(1));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, ignored);
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_EQ(file->bytes(), bytes);
  Fill(file.get(), {1});
  EXPECT_EQ(*Reopen()->Read(1), Payload(1));
}

TEST_F(ChunkFileTest, ReadersSeeWhatIsThereWhileOthersAreWritten) {
  auto file = Make();
  Fill(file.get(), {0});
  std::thread reader([&file] {
    while (!file->Has(9)) {
      const auto sizes = file->Sizes();
      for (size_t i = 0; i < sizes.size(); ++i) {
        if (sizes[i].items == 0) continue;
        const auto read = file->Read(static_cast<int64_t>(i));
        ASSERT_TRUE(read.ok()) << read.status();
        ASSERT_EQ(*read, Payload(static_cast<int64_t>(i)));
      }
    }
  });
  Fill(file.get(), {3, 1, 8, 2, 9});
  reader.join();
}

}  // namespace
}  // namespace cupola::storage
