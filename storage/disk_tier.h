#ifndef CUPOLA_STORAGE_DISK_TIER_H_
#define CUPOLA_STORAGE_DISK_TIER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "storage/record.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Env;
}  // namespace rocksdb

namespace cupola::storage {

// How much of a disk tier's capacity goes where. RocksDB's FIFO compaction
// bounds the table files only; the write-ahead log and a table file in the
// making come on top, and are taken off here.
struct DiskBudget {
  int64_t write_buffer_bytes;  // of one table file, roughly
  int64_t table_files_bytes;   // of all; the oldest above it are evicted
  int64_t patience_bytes;      // above it, writes wait for the eviction
  int64_t largest_record;      // larger records would empty a small cache
};
DiskBudget DiskBudgetFor(int64_t capacity_bytes);

// The result cache's RocksDB: records in one column family under FIFO
// compaction, so that the oldest file leaves when the capacity is reached, with
// the write-ahead log on and not synced, so that a write survives the process
// but not the machine. Errors are statuses here; ResultCache turns them into
// misses and counters.
//
// Read and GetSizes may be called from any thread, at any time; all other
// methods from one thread at a time.
class DiskTier {
 public:
  struct Options {
    std::string directory;
    int64_t capacity_bytes;
    rocksdb::Env* env;  // outlives the tier
    absl::Time now;     // names a directory that is moved aside
  };

  // A directory that RocksDB refuses is moved aside, under its lock, to
  // DIRECTORY.corrupt-<unix seconds>, and an empty one takes its place. Errors:
  // of MakePrivateDirectory and DirectoryLock, and RESOURCE_EXHAUSTED where the
  // disk is full, which is no reason to give up what is stored.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(Options options);
  ~DiskTier();
  DiskTier(const DiskTier&) = delete;
  DiskTier& operator=(const DiskTier&) = delete;

  // NOT_FOUND; DATA_LOSS for a damaged block or record; else the disk failed.
  absl::StatusOr<StoredRecord> Read(const CacheKey& key) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status Write(const CacheKey& key, const std::string& encoded_record)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Delete(const CacheKey& key);
  absl::Status Clear() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status ClearScope(uint64_t scope);
  // Makes what was written survive a loss of power, too.
  absl::Status Sync();

  // After a failed write, RocksDB refuses all others for good or for long.
  // Opens the directory anew, once the disk takes a probe and has room for what
  // the log holds; until then reads go on as before. If the opening fails,
  // reads miss until a later Recover succeeds.
  absl::Status Recover() ABSL_LOCKS_EXCLUDED(mutex_);

  struct Sizes {
    int64_t disk_bytes = 0;  // table files and the log that feeds the next one
    int64_t entries = 0;     // RocksDB's estimate
    // How old the file was that left last to make room; 0: none has.
    double evicted_age_seconds = 0;
  };
  Sizes GetSizes() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Where Open moved a damaged directory, or empty.
  const std::string& moved_aside_to() const { return moved_aside_to_; }

 private:
  explicit DiskTier(Options options);
  absl::Status OpenDatabase() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseDatabase() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MoveAside();
  // Whether the disk has room and takes a small file.
  absl::Status Probe();
  // FIFO compaction runs in RocksDB's background and can fall behind; this
  // waits for it where the disk holds more than the capacity.
  absl::Status EnforceCapacity() ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Sizes GetSizesLocked() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const DiskBudget budget_;
  // Written by RocksDB's threads.
  const std::shared_ptr<std::atomic<double>> evicted_age_seconds_;
  std::string moved_aside_to_;
  int64_t unchecked_bytes_ = 0;  // written since EnforceCapacity; the writer's
  // Held shared to use the database, exclusively to replace it or its family.
  mutable absl::Mutex mutex_;
  // Both null after a failed Recover or Clear, else both set.
  std::unique_ptr<rocksdb::DB> database_ ABSL_GUARDED_BY(mutex_);
  rocksdb::ColumnFamilyHandle* results_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_DISK_TIER_H_
