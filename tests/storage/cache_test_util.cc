#include "tests/storage/cache_test_util.h"

#include <utility>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "tests/storage/storage_test_util.h"

namespace cupola::storage {

ResultCacheOptions CacheOptionsFor(const std::string& directory) {
  ResultCacheOptions options;
  options.directory = directory;
  options.capacity_bytes = 64 << 20;
  options.memory_bytes = 0;
  return options;
}

std::unique_ptr<ResultCache> OpenCache(const std::string& directory) {
  absl::StatusOr<std::unique_ptr<ResultCache>> cache =
      ResultCache::Open(CacheOptionsFor(directory));
  EXPECT_TRUE(cache.ok()) << cache.status();
  return cache.ok() ? *std::move(cache) : nullptr;
}

int64_t CountRight(ResultCache* cache, uint64_t count) {
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

}  // namespace cupola::storage
