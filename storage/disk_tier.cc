#include "storage/disk_tier.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/listener.h"
#include "rocksdb/table.h"
#include "storage/database.h"

namespace cupola::storage {
namespace {

constexpr char kResultsFamily[] = "results";
constexpr double kBloomBitsPerKey = 10;
constexpr size_t kBlockBytes = 16 << 10;
constexpr uint64_t kManifestBytes = 4 << 20;
constexpr size_t kProbeBytes = 64 << 10;

rocksdb::CompressionType CheapCompression() {
  // Indices compress a little, values hardly; nothing slower pays.
  const std::vector<rocksdb::CompressionType> supported =
      rocksdb::GetSupportedCompressions();
  const bool lz4 = std::find(supported.begin(), supported.end(),
                             rocksdb::kLZ4Compression) != supported.end();
  return lz4 ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
}

// Tells how old the files are that FIFO compaction removes.
class EvictionListener final : public rocksdb::EventListener {
 public:
  EvictionListener(rocksdb::Env* env, std::shared_ptr<std::atomic<double>> age)
      : env_(env), age_(std::move(age)) {}

  void OnCompactionCompleted(rocksdb::DB* /*database*/,
                             const rocksdb::CompactionJobInfo& info) override {
    int64_t now = 0;
    if (info.compaction_reason != rocksdb::CompactionReason::kFIFOMaxSize ||
        !env_->GetCurrentTime(&now).ok()) {
      return;
    }
    for (const auto& [file, properties] : info.table_properties) {
      const auto written = static_cast<int64_t>(properties->file_creation_time);
      if (written > 0)
        *age_ = static_cast<double>(std::max<int64_t>(now - written, 0));
    }
  }

 private:
  rocksdb::Env* const env_;
  const std::shared_ptr<std::atomic<double>> age_;
};

rocksdb::DBOptions DatabaseOptions(
    rocksdb::Env* env,
    const std::shared_ptr<std::atomic<double>>& evicted_age) {
  rocksdb::DBOptions options(QuietOptions(env));
  options.listeners.push_back(
      std::make_shared<EvictionListener>(env, evicted_age));
  // Index and filter of every file stay in memory: a miss reads no disk, and a
  // damaged one shows at Open and not as a failing look-up of every key.
  options.max_open_files = -1;
  options.skip_stats_update_on_db_open = true;
  // The manifest grows with every file that comes and goes.
  options.max_manifest_file_size = kManifestBytes;
  // Records verify themselves, so each one that the log still has is welcome.
  options.wal_recovery_mode =
      rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
  return options;
}

rocksdb::ColumnFamilyOptions ResultsOptions(const DiskBudget& budget) {
  rocksdb::ColumnFamilyOptions options;
  options.compaction_style = rocksdb::kCompactionStyleFIFO;
  options.num_levels = 1;
  options.compaction_options_fifo.max_table_files_size =
      budget.table_files_bytes;
  options.compaction_options_fifo.allow_compaction = false;
  // RocksDB's defaults would expire records after 30 days.
  options.ttl = 0;
  options.periodic_compaction_seconds = 0;
  options.write_buffer_size = budget.write_buffer_bytes;
  options.compression = CheapCompression();
  rocksdb::BlockBasedTableOptions table;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
  table.block_size = kBlockBytes;
  // The hot tier holds decoded records; blocks would be a second copy.
  table.no_block_cache = true;
  table.checksum = rocksdb::kXXH3;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::WriteOptions UnsyncedWrite() {
  rocksdb::WriteOptions options;
  options.sync = false;
  options.disableWAL = false;
  return options;
}

// Without slashes at the end, behind which ".corrupt-..." would be a file
// inside.
DiskTier::Options Normalized(DiskTier::Options options) {
  std::string& directory = options.directory;
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  return options;
}

absl::Status NotOpen() {
  return absl::UnavailableError("the cache's database is not open");
}

}  // namespace

DiskBudget DiskBudgetFor(int64_t capacity_bytes) {
  // About 256 files: few enough to keep them all open, small enough that the
  // oldest one is a small part.
  const int64_t buffer =
      std::clamp<int64_t>(capacity_bytes / 256, 256 << 10, 128 << 20);
  // Beside the tables there are, in buffers: two in the log, one on its way
  // into a table, one table that is to be evicted, and as many again for what
  // RocksDB's background has not removed yet.
  const int64_t tables =
      std::max(capacity_bytes - 8 * buffer, capacity_bytes / 4);
  return {.write_buffer_bytes = buffer,
          .table_files_bytes = tables,
          .patience_bytes = tables + 4 * buffer,
          .largest_record = capacity_bytes / 4};
}

DiskTier::DiskTier(Options options)
    : options_(Normalized(std::move(options))),
      budget_(DiskBudgetFor(options_.capacity_bytes)),
      evicted_age_seconds_(std::make_shared<std::atomic<double>>(0)) {}

DiskTier::~DiskTier() {
  absl::MutexLock lock(&mutex_);
  CloseDatabase();
}

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(Options options) {
  auto tier = absl::WrapUnique(new DiskTier(std::move(options)));
  absl::MutexLock lock(&tier->mutex_);
  absl::Status status = MakePrivateDirectory(tier->options_.directory);
  if (!status.ok()) return status;
  // Asked first, so that a second server does not rotate the first one's log.
  status = DirectoryLock::Take(tier->options_.env, tier->options_.directory)
               .status();
  if (!status.ok()) return status;
  status = tier->OpenDatabase();
  if (status.ok()) return tier;
  if (absl::IsResourceExhausted(status)) return status;
  if (absl::Status moved = tier->MoveAside(); !moved.ok()) {
    return absl::Status(moved.code(),
                        absl::StrCat(status.message(), "; ", moved.message()));
  }
  status = tier->OpenDatabase();
  if (!status.ok()) return status;
  return tier;
}

absl::Status DiskTier::OpenDatabase() {
  const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions()},
      {kResultsFamily, ResultsOptions(budget_)}};
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(DatabaseOptions(options_.env, evicted_age_seconds_),
                        options_.directory, families, &handles, &database);
  if (!status.ok()) {
    return ToStatus(status,
                    absl::StrCat("cannot open cache ", options_.directory));
  }
  database_.reset(database);
  database_->DestroyColumnFamilyHandle(handles[0]).PermitUncheckedError();
  results_ = handles[1];
  return absl::OkStatus();
}

void DiskTier::CloseDatabase() {
  if (database_ == nullptr) return;
  if (results_ != nullptr) {
    database_->DestroyColumnFamilyHandle(results_).PermitUncheckedError();
  }
  results_ = nullptr;
  database_.reset();
}

absl::Status DiskTier::MoveAside() {
  // Held while the directory is renamed: nobody else has it open.
  absl::StatusOr<std::unique_ptr<DirectoryLock>> lock =
      DirectoryLock::Take(options_.env, options_.directory);
  if (!lock.ok()) return lock.status();
  const std::string base = absl::StrCat(options_.directory, ".corrupt-",
                                        absl::ToUnixSeconds(options_.now));
  std::string target = base;
  std::error_code ignored;
  for (int i = 1; std::filesystem::exists(target, ignored); ++i) {
    target = absl::StrCat(base, "-", i);
  }
  if (std::rename(options_.directory.c_str(), target.c_str()) != 0) {
    return absl::InternalError(absl::StrCat("cannot move the damaged cache ",
                                            options_.directory, " to ", target,
                                            ": ", std::strerror(errno)));
  }
  moved_aside_to_ = target;
  return MakePrivateDirectory(options_.directory);
}

absl::StatusOr<StoredRecord> DiskTier::Read(const CacheKey& key) const {
  absl::ReaderMutexLock lock(&mutex_);
  if (results_ == nullptr) return NotOpen();
  rocksdb::PinnableSlice bytes;
  const rocksdb::Status status =
      database_->Get(rocksdb::ReadOptions(), results_, EncodeKey(key), &bytes);
  if (status.IsNotFound()) return absl::NotFoundError("not in the cache");
  if (!status.ok()) return ToStatus(status, "cannot read a record");
  return DecodeRecord(key, absl::string_view(bytes.data(), bytes.size()));
}

absl::Status DiskTier::Write(const CacheKey& key,
                             const std::string& encoded_record) {
  absl::ReaderMutexLock lock(&mutex_);
  if (results_ == nullptr) return NotOpen();
  absl::Status status = ToStatus(
      database_->Put(UnsyncedWrite(), results_, EncodeKey(key), encoded_record),
      "cannot write a record");
  if (!status.ok()) return status;
  unchecked_bytes_ += static_cast<int64_t>(encoded_record.size());
  if (unchecked_bytes_ < budget_.write_buffer_bytes) return absl::OkStatus();
  unchecked_bytes_ = 0;
  return EnforceCapacity();
}

absl::Status DiskTier::EnforceCapacity() {
  if (GetSizesLocked().disk_bytes <= budget_.patience_bytes) {
    return absl::OkStatus();
  }
  return ToStatus(database_->CompactRange(rocksdb::CompactRangeOptions(),
                                          results_, nullptr, nullptr),
                  "cannot make room in the cache");
}

absl::Status DiskTier::Delete(const CacheKey& key) {
  absl::ReaderMutexLock lock(&mutex_);
  if (results_ == nullptr) return NotOpen();
  return ToStatus(database_->Delete(UnsyncedWrite(), results_, EncodeKey(key)),
                  "cannot delete a record");
}

absl::Status DiskTier::Clear() {
  // A dropped family's files are gone at once, where FIFO would keep a deleted
  // range on disk until it is the oldest.
  absl::MutexLock lock(&mutex_);
  if (results_ == nullptr) return NotOpen();
  absl::Status status =
      ToStatus(database_->DropColumnFamily(results_), "cannot clear the cache");
  if (!status.ok()) return status;
  database_->DestroyColumnFamilyHandle(results_).PermitUncheckedError();
  results_ = nullptr;
  status = ToStatus(database_->CreateColumnFamily(ResultsOptions(budget_),
                                                  kResultsFamily, &results_),
                    "cannot start an empty cache");
  if (!status.ok()) {
    results_ = nullptr;
    CloseDatabase();
  }
  return status;
}

absl::Status DiskTier::ClearScope(uint64_t scope) {
  absl::ReaderMutexLock lock(&mutex_);
  if (results_ == nullptr) return NotOpen();
  const KeyRange range = ScopeRange(scope);
  return ToStatus(
      database_->DeleteRange(UnsyncedWrite(), results_, range.begin, range.end),
      "cannot clear a scope");
}

absl::Status DiskTier::Sync() {
  absl::ReaderMutexLock lock(&mutex_);
  if (results_ == nullptr) return NotOpen();
  return ToStatus(database_->SyncWAL(), "cannot sync the cache's log");
}

absl::Status DiskTier::Recover() {
  if (absl::Status probed = Probe(); !probed.ok()) return probed;
  absl::MutexLock lock(&mutex_);
  CloseDatabase();
  return OpenDatabase();
}

absl::Status DiskTier::Probe() {
  const std::string what =
      absl::StrCat("the disk of ", options_.directory, " takes no writes");
  uint64_t free_bytes = 0;
  const int64_t needed = 4 * budget_.write_buffer_bytes;
  // Not every file system can tell; the small file is asked in any case.
  if (options_.env->GetFreeSpace(options_.directory, &free_bytes).ok() &&
      free_bytes < static_cast<uint64_t>(needed)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        what, ": ", free_bytes, " bytes free, ", needed, " needed"));
  }
  const std::string file = absl::StrCat(options_.directory, "/PROBE");
  const rocksdb::Status written = rocksdb::WriteStringToFile(
      options_.env, std::string(kProbeBytes, 'x'), file, /*should_sync=*/true);
  options_.env->DeleteFile(file).PermitUncheckedError();
  return ToStatus(written, what);
}

DiskTier::Sizes DiskTier::GetSizes() const {
  absl::ReaderMutexLock lock(&mutex_);
  return results_ == nullptr ? Sizes() : GetSizesLocked();
}

DiskTier::Sizes DiskTier::GetSizesLocked() const {
  uint64_t tables = 0, unflushed = 0, entries = 0;
  using Properties = rocksdb::DB::Properties;
  database_->GetIntProperty(results_, Properties::kTotalSstFilesSize, &tables);
  database_->GetIntProperty(results_, Properties::kCurSizeAllMemTables,
                            &unflushed);
  database_->GetIntProperty(results_, Properties::kEstimateNumKeys, &entries);
  return {.disk_bytes = static_cast<int64_t>(tables + unflushed),
          .entries = static_cast<int64_t>(entries),
          .evicted_age_seconds = *evicted_age_seconds_};
}

}  // namespace cupola::storage
