#include "storage/durable_store.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/db.h"
#include "storage/database.h"

namespace cupola::storage {
namespace {

rocksdb::Slice ToSlice(absl::string_view bytes) {
  return rocksdb::Slice(bytes.data(), bytes.size());
}

rocksdb::WriteOptions SyncedWrite() {
  rocksdb::WriteOptions options;
  options.sync = true;
  return options;
}

rocksdb::Options StoreOptions() {
  rocksdb::Options options = QuietOptions(rocksdb::Env::Default());
  options.compaction_style = rocksdb::kCompactionStyleLevel;
  options.OptimizeForSmallDb();
  // Every value is kept until it is deleted, however old.
  options.ttl = 0;
  options.periodic_compaction_seconds = 0;
  // The end of the log may be torn by a crash: that write was not acknowledged.
  // Damage anywhere else must show, since it would undo acknowledged writes.
  options.wal_recovery_mode =
      rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DurableStore>> DurableStore::Open(
    const std::string& directory) {
  if (absl::Status made = MakePrivateDirectory(directory); !made.ok()) {
    return made;
  }
  const absl::Status unlocked =
      DirectoryLock::Take(rocksdb::Env::Default(), directory).status();
  if (!unlocked.ok()) return unlocked;
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(StoreOptions(), directory, &database);
  if (!status.ok()) {
    return ToStatus(status,
                    absl::StrCat("cannot open durable store ", directory));
  }
  return absl::WrapUnique(
      new DurableStore(directory, std::unique_ptr<rocksdb::DB>(database)));
}

DurableStore::DurableStore(std::string directory,
                           std::unique_ptr<rocksdb::DB> database)
    : directory_(std::move(directory)), database_(std::move(database)) {}

DurableStore::~DurableStore() = default;

absl::StatusOr<std::string> DurableStore::Get(absl::string_view key) const {
  std::string value;
  const rocksdb::Status status =
      database_->Get(rocksdb::ReadOptions(), ToSlice(key), &value);
  if (!status.ok()) {
    return ToStatus(status,
                    absl::StrCat("cannot read ", key, " in ", directory_));
  }
  return value;
}

absl::Status DurableStore::Put(absl::string_view key, absl::string_view value) {
  return ToStatus(database_->Put(SyncedWrite(), ToSlice(key), ToSlice(value)),
                  absl::StrCat("cannot write ", key, " in ", directory_));
}

absl::Status DurableStore::Delete(absl::string_view key) {
  return ToStatus(database_->Delete(SyncedWrite(), ToSlice(key)),
                  absl::StrCat("cannot delete ", key, " in ", directory_));
}

absl::Status DurableStore::DeletePrefix(absl::string_view prefix) {
  // The first key behind all that begin with it.
  std::string end(prefix);
  while (!end.empty() && static_cast<uint8_t>(end.back()) == 0xff) {
    end.pop_back();
  }
  if (end.empty()) return absl::InvalidArgumentError("prefix: it is empty");
  ++end.back();
  return ToStatus(
      database_->DeleteRange(SyncedWrite(), database_->DefaultColumnFamily(),
                             ToSlice(prefix), ToSlice(end)),
      absl::StrCat("cannot delete ", prefix, "* in ", directory_));
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>>
DurableStore::Scan(absl::string_view prefix) const {
  std::vector<std::pair<std::string, std::string>> entries;
  const std::unique_ptr<rocksdb::Iterator> iterator(
      database_->NewIterator(rocksdb::ReadOptions()));
  for (iterator->Seek(ToSlice(prefix));
       iterator->Valid() && iterator->key().starts_with(ToSlice(prefix));
       iterator->Next()) {
    entries.emplace_back(iterator->key().ToString(),
                         iterator->value().ToString());
  }
  if (!iterator->status().ok()) {
    return ToStatus(iterator->status(),
                    absl::StrCat("cannot list ", prefix, " in ", directory_));
  }
  return entries;
}

absl::StatusOr<std::vector<std::string>> DurableStore::Keys(
    absl::string_view prefix) const {
  std::vector<std::string> keys;
  const std::unique_ptr<rocksdb::Iterator> iterator(
      database_->NewIterator(rocksdb::ReadOptions()));
  for (iterator->Seek(ToSlice(prefix));
       iterator->Valid() && iterator->key().starts_with(ToSlice(prefix));
       iterator->Next()) {
    keys.push_back(iterator->key().ToString());
  }
  if (!iterator->status().ok()) {
    return ToStatus(iterator->status(),
                    absl::StrCat("cannot list ", prefix, " in ", directory_));
  }
  return keys;
}

}  // namespace cupola::storage
