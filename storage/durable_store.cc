#include "storage/durable_store.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"
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

rocksdb::Options StoreOptions(DurableStore::Values values) {
  rocksdb::Options options = QuietOptions(rocksdb::Env::Default());
  options.compaction_style = rocksdb::kCompactionStyleLevel;
  if (values == DurableStore::Values::kSmall) {
    options.OptimizeForSmallDb();
  } else {
    // Some hundred files, not ten thousand, for the gigabytes of a corpus.
    options.write_buffer_size = size_t{16} << 20;
    options.target_file_size_base = uint64_t{64} << 20;
  }
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
    const std::string& directory, Values values) {
  if (absl::Status made = MakePrivateDirectory(directory); !made.ok()) {
    return made;
  }
  const absl::Status unlocked =
      DirectoryLock::Take(rocksdb::Env::Default(), directory).status();
  if (!unlocked.ok()) return unlocked;
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(StoreOptions(values), directory, &database);
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
  rocksdb::ColumnFamilyHandle* const family = database_->DefaultColumnFamily();
  const rocksdb::Slice first = ToSlice(prefix), last = ToSlice(end);
  const rocksdb::Status deleted =
      database_->DeleteRange(SyncedWrite(), family, first, last);
  if (deleted.ok()) {
    // Nothing would be written over the range for a long time: the keys are
    // free now, but their bytes only once their files are rewritten.
    rocksdb::DeleteFilesInRange(database_.get(), family, &first, &last, false)
        .PermitUncheckedError();
    rocksdb::CompactRangeOptions compact;
    compact.exclusive_manual_compaction = false;
    database_->CompactRange(compact, family, &first, &last)
        .PermitUncheckedError();
  }
  return ToStatus(deleted,
                  absl::StrCat("cannot delete ", prefix, "* in ", directory_));
}

absl::Status DurableStore::Apply(const std::vector<Change>& changes) {
  rocksdb::WriteBatch batch;
  for (const Change& change : changes) {
    const rocksdb::Status added =
        change.value.has_value()
            ? batch.Put(ToSlice(change.key), ToSlice(*change.value))
            : batch.Delete(ToSlice(change.key));
    if (!added.ok()) {
      return ToStatus(added, absl::StrCat("cannot change ", directory_));
    }
  }
  return ToStatus(database_->Write(SyncedWrite(), &batch),
                  absl::StrCat("cannot change ", directory_));
}

absl::StatusOr<std::vector<std::string>> DurableStore::Folders(
    absl::string_view prefix) const {
  std::vector<std::string> folders;
  const std::unique_ptr<rocksdb::Iterator> iterator(
      database_->NewIterator(rocksdb::ReadOptions()));
  iterator->Seek(ToSlice(prefix));
  while (iterator->Valid() && iterator->key().starts_with(ToSlice(prefix))) {
    const std::string key = iterator->key().ToString();
    const size_t end = key.find('/', prefix.size());
    if (end == std::string::npos) {
      iterator->Next();
      continue;
    }
    folders.push_back(key.substr(prefix.size(), end - prefix.size()));
    // The first key behind the folder: '0' follows '/'.
    iterator->Seek(absl::StrCat(key.substr(0, end), "0"));
  }
  if (!iterator->status().ok()) {
    return ToStatus(iterator->status(),
                    absl::StrCat("cannot list ", prefix, " in ", directory_));
  }
  return folders;
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
