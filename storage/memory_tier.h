#ifndef CUPOLA_STORAGE_MEMORY_TIER_H_
#define CUPOLA_STORAGE_MEMORY_TIER_H_

#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "storage/record.h"

namespace cupola::storage {

// The hot tier of the result cache: decoded records in memory, the least
// recently used leaving first. Each record is charged MemoryBytes plus
// kEntryBytes; the sum never exceeds the capacity. A record above the capacity
// is not kept. Records are shared: an evicted one lives on while a reader holds
// it.
//
// All methods may be called from any thread.
class MemoryTier {
 public:
  // What one entry of the index takes, roughly.
  static constexpr int64_t kEntryBytes = 160;

  explicit MemoryTier(int64_t capacity_bytes);

  // The record, or null.
  std::shared_ptr<const Record> Find(const CacheKey& key);

  // Keeps `record` in place of what the key had.
  void Insert(const CacheKey& key, std::shared_ptr<const Record> record);

  // The same for a record read from disk, unless anything was cleared since
  // `generation` was taken: what Clear dropped must not come back by a reader
  // who was on his way.
  void InsertRead(const CacheKey& key, std::shared_ptr<const Record> record,
                  uint64_t generation);
  uint64_t generation() const;

  void Clear();
  void ClearScope(uint64_t scope);

  int64_t bytes() const;

 private:
  struct Entry {
    CacheKey key;
    std::shared_ptr<const Record> record;
    int64_t charge;
  };
  // Most recently used first.
  using List = std::list<Entry>;
  struct Hash {
    // A digest's bytes are uniform already.
    size_t operator()(const CacheKey& key) const {
      size_t hash;
      std::memcpy(&hash, key.digest.data(), sizeof(hash));
      return hash;
    }
  };

  // What leaves goes to `removed`, to be destroyed without the mutex.
  void InsertLocked(const CacheKey& key, std::shared_ptr<const Record> record,
                    int64_t charge, List* removed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveLocked(List::iterator entry, List* removed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t capacity_bytes_;
  mutable absl::Mutex mutex_;
  List entries_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<CacheKey, List::iterator, Hash> index_
      ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_MEMORY_TIER_H_
