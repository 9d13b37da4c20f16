#ifndef CUPOLA_STORAGE_RESULT_CACHE_H_
#define CUPOLA_STORAGE_RESULT_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/record.h"

namespace cupola::storage {

struct ResultCacheOptions {
  std::string directory;                // created with mode 0700
  int64_t capacity_bytes = 10LL << 30;  // on disk; a hard cap
  int64_t memory_bytes = 128LL << 20;   // hot tier of decoded records
  int64_t max_record_bytes = 16LL << 20;
  int64_t write_queue_bytes = 256LL << 20;
  // After a failed write, writes stop for this long.
  absl::Duration write_retry_delay = absl::Seconds(10);
  // Sees the current time; replaced in tests.
  absl::Time (*now)() = &absl::Now;
};

// Counters since Open, then gauges. Once Flush has returned, every Put is one
// insert or one dropped insert, and every Get is one hit or one miss.
struct ResultCacheStatistics {
  int64_t hits = 0, memory_hits = 0, misses = 0;  // memory hits are hits, too
  int64_t inserts = 0, dropped_inserts = 0;
  // Records that were damaged; reads and writes that the disk refused.
  int64_t corrupt_records = 0, read_errors = 0, write_errors = 0;
  int64_t disk_bytes = 0, capacity_bytes = 0, memory_bytes = 0;
  int64_t estimated_entries = 0;
  // Since the writing of the newest record of the file that left last to make
  // room; 0: none has.
  double evicted_age_seconds = 0;
};

// A persistent, size-bounded map from CacheKey to Record in RocksDB. Promises:
//
//  - Get returns exactly the arrays that Put was given, or nothing. A record
//    whose checksum or key echo does not match is a miss, is deleted and
//    counted.
//  - No failure of the disk is ever visible to a caller other than as a miss.
//  - The disk holds at most about capacity_bytes; the oldest records go first.
//  - A cache directory that cannot be opened is moved aside to
//    DIRECTORY.corrupt-<unix time> and an empty one takes its place. What was
//    moved aside is never touched again: its bytes are the operator's.
//
// Put returns at once: a background thread writes. Records larger than
// max_record_bytes (or a quarter of the capacity), those that break an array's
// invariant, and those that find the queue full or the disk failing are dropped
// and counted. A written record survives the end of the process at any time.
// Flush waits until what was put before is written, or dropped, and makes it
// survive a loss of power. After a failed write, writes stop for
// write_retry_delay; reads go on.
//
// All methods may be called from any thread. Get reads the disk: not for a gRPC
// reaction. The byte formats of keys and records are in storage/record.h.
class ResultCache {
 public:
  // Fails only where no directory can be made, another process holds it
  // (FAILED_PRECONDITION), or the disk is full (RESOURCE_EXHAUSTED). Errors
  // name the directory.
  static absl::StatusOr<std::unique_ptr<ResultCache>> Open(
      const ResultCacheOptions& options);
  ~ResultCache();  // writes what is queued
  ResultCache(const ResultCache&) = delete;
  ResultCache& operator=(const ResultCache&) = delete;

  // The record, shared with the hot tier, or null.
  std::shared_ptr<const Record> Get(const CacheKey& key);
  // REQUIRES: record is not null. A record that is still queued is found
  // through the hot tier, while that has room for it.
  void Put(const CacheKey& key, std::shared_ptr<const Record> record);

  void Flush();
  // Drops everything (or one scope's records) and waits for it. The bytes of a
  // dropped scope leave the disk as their files age; those of Clear at once. A
  // failure of the disk counts as a write error.
  void Clear();
  void ClearScope(uint64_t scope);

  // Some microseconds; never waits for the disk, nor for the writer.
  ResultCacheStatistics GetStatistics() const;
  // Where Open moved a directory that could not be opened, or empty.
  const std::string& MovedAsideTo() const;

 private:
  friend class ResultCachePeer;  // storage/result_cache_peer.h: for tests
  class Impl;
  explicit ResultCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_RESULT_CACHE_H_
