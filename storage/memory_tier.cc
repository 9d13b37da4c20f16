#include "storage/memory_tier.h"

#include <iterator>
#include <utility>

namespace cupola::storage {

MemoryTier::MemoryTier(int64_t capacity_bytes)
    : capacity_bytes_(capacity_bytes) {}

std::shared_ptr<const Record> MemoryTier::Find(const CacheKey& key) {
  absl::MutexLock lock(&mutex_);
  const auto found = index_.find(key);
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->record;
}

void MemoryTier::Insert(const CacheKey& key,
                        std::shared_ptr<const Record> record) {
  const int64_t charge = MemoryBytes(*record) + kEntryBytes;
  List removed;  // destroyed after the lock
  absl::MutexLock lock(&mutex_);
  InsertLocked(key, std::move(record), charge, &removed);
}

void MemoryTier::InsertRead(const CacheKey& key,
                            std::shared_ptr<const Record> record,
                            uint64_t generation) {
  const int64_t charge = MemoryBytes(*record) + kEntryBytes;
  List removed;
  absl::MutexLock lock(&mutex_);
  // A Put that came in between is newer than what was read.
  if (generation != generation_ || index_.contains(key)) return;
  InsertLocked(key, std::move(record), charge, &removed);
}

void MemoryTier::InsertLocked(const CacheKey& key,
                              std::shared_ptr<const Record> record,
                              int64_t charge, List* removed) {
  if (const auto found = index_.find(key); found != index_.end()) {
    RemoveLocked(found->second, removed);
  }
  if (charge > capacity_bytes_) return;
  while (bytes_ + charge > capacity_bytes_) {
    RemoveLocked(std::prev(entries_.end()), removed);
  }
  entries_.push_front({key, std::move(record), charge});
  index_.emplace(key, entries_.begin());
  bytes_ += charge;
}

void MemoryTier::RemoveLocked(List::iterator entry, List* removed) {
  bytes_ -= entry->charge;
  index_.erase(entry->key);
  removed->splice(removed->end(), entries_, entry);
}

uint64_t MemoryTier::generation() const {
  absl::MutexLock lock(&mutex_);
  return generation_;
}

void MemoryTier::Clear() {
  List removed;
  absl::MutexLock lock(&mutex_);
  ++generation_;
  removed.swap(entries_);
  index_.clear();
  bytes_ = 0;
}

void MemoryTier::ClearScope(uint64_t scope) {
  List removed;
  absl::MutexLock lock(&mutex_);
  ++generation_;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto next = std::next(entry);
    if (entry->key.scope == scope) RemoveLocked(entry, &removed);
    entry = next;
  }
}

int64_t MemoryTier::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

}  // namespace cupola::storage
