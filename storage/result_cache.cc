#include "storage/result_cache.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/memory/memory.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "rocksdb/env.h"
#include "storage/disk_tier.h"
#include "storage/memory_tier.h"
#include "storage/result_cache_peer.h"

namespace cupola::storage {
namespace {

// Only the writer thread changes the disk, in the order of the queue; callers
// that must wait leave a notification.
struct Task {
  enum class Kind { kWrite, kDelete, kClear, kClearScope, kSync };
  Kind kind;
  CacheKey key = {};  // kClearScope: its scope
  std::shared_ptr<const Record> record = nullptr;
  int64_t charge = 0;  // against write_queue_bytes
  absl::Notification* done = nullptr;
};

using Counter = std::atomic<int64_t>;

void Count(Counter* counter) {
  counter->fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

class ResultCache::Impl {
 public:
  Impl(const ResultCacheOptions& options, std::unique_ptr<DiskTier> disk)
      : options_(options),
        max_record_bytes_(
            std::min(options.max_record_bytes,
                     DiskBudgetFor(options.capacity_bytes).largest_record)),
        memory_(options.memory_bytes),
        disk_(std::move(disk)),
        writer_([this] { WriterLoop(); }) {}

  ~Impl() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    writer_.join();
  }

  std::shared_ptr<const Record> Get(const CacheKey& key);
  void Put(const CacheKey& key, std::shared_ptr<const Record> record);
  // Queues a task and waits until the writer has done it.
  void RunTask(Task::Kind kind, uint64_t scope) ABSL_LOCKS_EXCLUDED(mutex_);
  ResultCacheStatistics GetStatistics() const;
  const std::string& moved_aside_to() const { return disk_->moved_aside_to(); }

 private:
  // False, and nothing queued, where the queue has no room for the charge.
  bool Enqueue(Task task) ABSL_LOCKS_EXCLUDED(mutex_);

  // The writer thread's.
  void WriterLoop();
  void Run(const Task& task);
  void Write(const Task& task);
  // Whether the disk takes writes now; tries to bring it back when due.
  bool Writable();
  // The same without waiting for the retry delay: for what must not be skipped.
  bool WritableAtOnce();
  // Counts a failure and stops writes for a while.
  void OnWriteStatus(const absl::Status& status);

  const ResultCacheOptions options_;
  const int64_t max_record_bytes_;
  MemoryTier memory_;
  const std::unique_ptr<DiskTier> disk_;

  Counter hits_{0}, memory_hits_{0}, misses_{0}, inserts_{0}, dropped_{0};
  Counter corrupt_{0}, read_errors_{0}, write_errors_{0};

  absl::Mutex mutex_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  // The writer thread's: when to try again after a failure.
  std::optional<absl::Time> retry_at_;

  std::thread writer_;  // last: it uses all of the above
};

std::shared_ptr<const Record> ResultCache::Impl::Get(const CacheKey& key) {
  if (std::shared_ptr<const Record> record = memory_.Find(key)) {
    Count(&hits_);
    Count(&memory_hits_);
    return record;
  }
  const uint64_t generation = memory_.generation();
  absl::StatusOr<StoredRecord> stored = disk_->Read(key);
  if (stored.ok()) {
    Count(&hits_);
    auto record = std::make_shared<const Record>(std::move(stored->record));
    memory_.InsertRead(key, record, generation);
    return record;
  }
  Count(&misses_);
  if (absl::IsDataLoss(stored.status())) {
    Count(&corrupt_);
    // Without room in the queue the record stays, to be found damaged again.
    Enqueue({.kind = Task::Kind::kDelete, .key = key, .charge = sizeof(Task)});
  } else if (!absl::IsNotFound(stored.status())) {
    Count(&read_errors_);
  }
  return nullptr;
}

void ResultCache::Impl::Put(const CacheKey& key,
                            std::shared_ptr<const Record> record) {
  const int64_t bytes = MemoryBytes(*record);
  bool valid = bytes <= max_record_bytes_;
  for (const Array& array : *record) valid = valid && IsValid(array);
  if (!valid) {
    Count(&dropped_);
    return;
  }
  memory_.Insert(key, record);
  const int64_t charge = bytes + static_cast<int64_t>(sizeof(Task));
  if (!Enqueue({.kind = Task::Kind::kWrite,
                .key = key,
                .record = std::move(record),
                .charge = charge})) {
    Count(&dropped_);
  }
}

void ResultCache::Impl::RunTask(Task::Kind kind, uint64_t scope) {
  absl::Notification done;
  Enqueue({.kind = kind, .key = {.scope = scope}, .done = &done});
  done.WaitForNotification();
}

bool ResultCache::Impl::Enqueue(Task task) {
  absl::MutexLock lock(&mutex_);
  // Tasks that somebody waits for are free of charge and always fit.
  if (task.charge > 0 &&
      queued_bytes_ + task.charge > options_.write_queue_bytes) {
    return false;
  }
  queued_bytes_ += task.charge;
  queue_.push_back(std::move(task));
  return true;
}

void ResultCache::Impl::WriterLoop() {
  const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  };
  int64_t finished_bytes = 0;
  while (true) {
    std::optional<Task> task;
    {
      absl::MutexLock lock(&mutex_);
      queued_bytes_ -= finished_bytes;
      mutex_.Await(absl::Condition(&has_work));
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    Run(*task);
    finished_bytes = task->charge;
    if (task->done != nullptr) task->done->Notify();
  }
}

void ResultCache::Impl::Run(const Task& task) {
  switch (task.kind) {
    case Task::Kind::kWrite:
      Write(task);
      return;
    case Task::Kind::kDelete:
      if (Writable()) OnWriteStatus(disk_->Delete(task.key));
      return;
    // The disk first: what a reader takes from it after that is not there, and
    // what he took before is of an older generation of the hot tier.
    case Task::Kind::kClear:
      if (WritableAtOnce()) OnWriteStatus(disk_->Clear());
      memory_.Clear();
      return;
    case Task::Kind::kClearScope:
      if (WritableAtOnce()) OnWriteStatus(disk_->ClearScope(task.key.scope));
      memory_.ClearScope(task.key.scope);
      return;
    case Task::Kind::kSync:
      if (Writable()) OnWriteStatus(disk_->Sync());
      return;
  }
}

void ResultCache::Impl::Write(const Task& task) {
  if (!Writable()) {
    Count(&dropped_);
    return;
  }
  const absl::StatusOr<std::string> encoded =
      EncodeRecord(task.key, *task.record, options_.now());
  if (!encoded.ok()) {  // more arrays or dimensions than the format can say
    Count(&dropped_);
    return;
  }
  const absl::Status status = disk_->Write(task.key, *encoded);
  Count(status.ok() ? &inserts_ : &dropped_);
  OnWriteStatus(status);
}

bool ResultCache::Impl::Writable() {
  if (!retry_at_.has_value()) return true;
  if (options_.now() < *retry_at_) return false;
  const absl::Status recovered = disk_->Recover();
  if (recovered.ok()) {
    retry_at_.reset();
  } else {
    OnWriteStatus(recovered);
  }
  return recovered.ok();
}

bool ResultCache::Impl::WritableAtOnce() {
  if (retry_at_.has_value()) retry_at_ = options_.now();
  return Writable();
}

void ResultCache::Impl::OnWriteStatus(const absl::Status& status) {
  if (status.ok()) return;
  Count(&write_errors_);
  retry_at_ = options_.now() + options_.write_retry_delay;
}

ResultCacheStatistics ResultCache::Impl::GetStatistics() const {
  const DiskTier::Sizes sizes = disk_->GetSizes();
  return {.hits = hits_.load(),
          .memory_hits = memory_hits_.load(),
          .misses = misses_.load(),
          .inserts = inserts_.load(),
          .dropped_inserts = dropped_.load(),
          .corrupt_records = corrupt_.load(),
          .read_errors = read_errors_.load(),
          .write_errors = write_errors_.load(),
          .disk_bytes = sizes.disk_bytes,
          .capacity_bytes = options_.capacity_bytes,
          .memory_bytes = memory_.bytes(),
          .estimated_entries = sizes.entries,
          .evicted_age_seconds = sizes.evicted_age_seconds};
}

absl::StatusOr<std::unique_ptr<ResultCache>> ResultCachePeer::Open(
    const ResultCacheOptions& options, rocksdb::Env* env) {
  absl::StatusOr<std::unique_ptr<DiskTier>> disk =
      DiskTier::Open({.directory = options.directory,
                      .capacity_bytes = options.capacity_bytes,
                      .env = env,
                      .now = options.now()});
  if (!disk.ok()) return disk.status();
  return absl::WrapUnique(new ResultCache(
      std::make_unique<ResultCache::Impl>(options, *std::move(disk))));
}

absl::StatusOr<std::unique_ptr<ResultCache>> ResultCache::Open(
    const ResultCacheOptions& options) {
  return ResultCachePeer::Open(options, rocksdb::Env::Default());
}

ResultCache::ResultCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ResultCache::~ResultCache() = default;

std::shared_ptr<const Record> ResultCache::Get(const CacheKey& key) {
  return impl_->Get(key);
}
void ResultCache::Put(const CacheKey& key,
                      std::shared_ptr<const Record> record) {
  impl_->Put(key, std::move(record));
}
void ResultCache::Flush() { impl_->RunTask(Task::Kind::kSync, 0); }
void ResultCache::Clear() { impl_->RunTask(Task::Kind::kClear, 0); }
void ResultCache::ClearScope(uint64_t scope) {
  impl_->RunTask(Task::Kind::kClearScope, scope);
}
ResultCacheStatistics ResultCache::GetStatistics() const {
  return impl_->GetStatistics();
}
const std::string& ResultCache::MovedAsideTo() const {
  return impl_->moved_aside_to();
}

}  // namespace cupola::storage
