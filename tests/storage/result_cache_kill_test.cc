// The result cache after kill -9, and while another process holds it.

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/result_cache.h"
#include "tests/storage/cache_test_util.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {
namespace {

using ::testing::StartsWith;

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
    std::unique_ptr<ResultCache> cache = OpenCache(results);
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
  const absl::Status status =
      ResultCache::Open(CacheOptionsFor(results)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              StartsWith(results + " is in use by another process"));
  EXPECT_GT(writer.NextFlushed(), 0u);  // and is not disturbed
  writer.Kill();
  EXPECT_NE(OpenCache(results), nullptr);
}

}  // namespace
}  // namespace cupola::storage
