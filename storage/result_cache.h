#ifndef CUPOLA_STORAGE_RESULT_CACHE_H_
#define CUPOLA_STORAGE_RESULT_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/array.h"
#include "storage/digest.h"

namespace cupola::storage {

// One cached answer: some arrays, in an order that its operation fixes.
using Record = std::vector<Array>;

// Where an answer lives: everything that can change it is in `digest`; `scope`
// (the first 8 bytes of the model's digest) and `operation` lead the stored key,
// so that a model's answers can be dropped together.
struct CacheKey {
  uint64_t scope = 0;
  uint8_t operation = 0;
  Digest digest{};
};

struct ResultCacheOptions {
  std::string directory;          // created with mode 0700
  int64_t capacity_bytes = 10LL << 30;  // on disk; a hard cap
  int64_t memory_bytes = 128LL << 20;   // hot tier of decoded records
  int64_t max_record_bytes = 16LL << 20;
  int64_t write_queue_bytes = 256LL << 20;
  // After a failed write, writes stop for this long.
  absl::Duration write_retry_delay = absl::Seconds(10);
  // Sees the current time; replaced in tests.
  absl::Time (*now)() = &absl::Now;
};

struct ResultCacheStatistics {
  int64_t hits = 0, memory_hits = 0, misses = 0;
  int64_t inserts = 0, dropped_inserts = 0;
  int64_t corrupt_records = 0, write_errors = 0;
  int64_t disk_bytes = 0, capacity_bytes = 0, memory_bytes = 0;
  int64_t estimated_entries = 0;
};

// A persistent, size-bounded map from CacheKey to Record in RocksDB. Promises:
//
//  - Get returns exactly the arrays that Put was given, or nothing. A record
//    whose checksum or key echo does not match is a miss, is deleted and counted.
//  - No failure of the disk is ever visible to a caller other than as a miss.
//  - The disk holds at most about capacity_bytes; the oldest records go first.
//  - A cache directory that cannot be opened is moved aside to
//    DIRECTORY.corrupt-<unix time> and an empty one takes its place.
//
// Put returns at once: a background thread writes. Records larger than
// max_record_bytes, and those that find the queue full, are dropped and counted.
// Flush waits until what was put before is on disk (survives a kill).
//
// All methods may be called from any thread. Get reads the disk: not for a gRPC
// reaction. The byte formats of keys and records are in storage/record.h.
class ResultCache {
 public:
  // Fails only where no directory can be made or another process holds it.
  static absl::StatusOr<std::unique_ptr<ResultCache>> Open(
      const ResultCacheOptions& options);
  ~ResultCache();  // writes what is queued
  ResultCache(const ResultCache&) = delete;
  ResultCache& operator=(const ResultCache&) = delete;

  // The record, shared with the hot tier, or null.
  std::shared_ptr<const Record> Get(const CacheKey& key);
  void Put(const CacheKey& key, std::shared_ptr<const Record> record);

  void Flush();
  // Drops everything (or one scope's records) and waits for it.
  void Clear();
  void ClearScope(uint64_t scope);

  ResultCacheStatistics GetStatistics() const;

 private:
  class Impl;
  explicit ResultCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_RESULT_CACHE_H_
