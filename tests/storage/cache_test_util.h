#ifndef CUPOLA_TESTS_STORAGE_CACHE_TEST_UTIL_H_
#define CUPOLA_TESTS_STORAGE_CACHE_TEST_UTIL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "storage/result_cache.h"

namespace cupola::storage {

// 64 MiB on disk and no hot tier, so that every Get reads the disk.
ResultCacheOptions CacheOptionsFor(const std::string& directory);

// Null, and a test failure, where the cache does not open.
std::unique_ptr<ResultCache> OpenCache(const std::string& directory);

// How many of the first `count` numbered records are there. A test failure
// where one is wrong.
int64_t CountRight(ResultCache* cache, uint64_t count);

// A test failure where a record does not come back after a Put, under a key
// that may have been used before and under a new one.
void ExpectTakesRecords(ResultCache* cache);

}  // namespace cupola::storage

#endif  // CUPOLA_TESTS_STORAGE_CACHE_TEST_UTIL_H_
