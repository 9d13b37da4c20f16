#include "server/engine/datasets.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/engine/dataset_records.h"
#include "server/engine/mean_store.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

constexpr char kDatasetUse[] = "dataset/";
constexpr char kTokenizedUse[] = "tokenized/";
// Of stores that no record names yet, or any more.
constexpr char kUnfinishedUse[] = "unfinished/";
constexpr size_t kNamesTold = 10;

std::string DatasetKey(const std::string& name) {
  return absl::StrCat(kDatasetUse, name);
}
std::string TokenizedKey(const storage::Digest& digest) {
  return absl::StrCat(kTokenizedUse, storage::ToHex(digest));
}
std::string UnfinishedKey(const std::string& store) {
  return absl::StrCat(kUnfinishedUse, store);
}

}  // namespace

std::unique_ptr<Datasets> Datasets::Open(Options options) {
  auto datasets = absl::WrapUnique(new Datasets(std::move(options)));
  absl::MutexLock lock(&datasets->mu_);
  const std::string& directory = datasets->options_.directory;
  if (directory.empty()) {
    datasets->opened_ = absl::FailedPreconditionError(
        "datasets need a directory: start the server with --cache_dir");
    return datasets;
  }
  auto disk = storage::DurableStore::Open(directory);
  if (disk.ok()) {
    datasets->disk_ = *std::move(disk);
    datasets->opened_ = datasets->ReadIndex();
  } else {
    datasets->opened_ = disk.status();
  }
  return datasets;
}

absl::Status Datasets::ReadIndex() {
  std::set<std::string> used;
  ASSIGN_OR_RETURN(const auto datasets, disk_->Scan(kDatasetUse));
  for (const auto& [key, text] : datasets) {
    ASSIGN_OR_RETURN(DatasetRecord record, ParseDataset(key, text));
    record.info.name = key.substr(sizeof(kDatasetUse) - 1);
    contents_[record.info.digest] = {record.store, record.info.bytes};
    used.insert(record.store);
    const std::string name = record.info.name;
    named_[name] = std::move(record.info);
  }
  ASSIGN_OR_RETURN(const auto tokenized, disk_->Scan(kTokenizedUse));
  for (const auto& [key, text] : tokenized) {
    ASSIGN_OR_RETURN(TokenizedRecord record, ParseTokenized(key, text));
    if (!contents_.contains(record.info.content)) {
      // The process ended while it deleted the last dataset of these documents.
      RETURN_IF_ERROR(disk_->Put(UnfinishedKey(record.store), ""));
      RETURN_IF_ERROR(disk_->Delete(key));
      continue;
    }
    used.insert(record.store);
    const storage::Digest digest = record.info.digest;
    tokenized_[digest] = {std::move(record.info), record.store, record.bytes};
  }
  ASSIGN_OR_RETURN(const auto unfinished, disk_->Scan(kUnfinishedUse));
  for (const auto& [key, text] : unfinished) {
    const std::string store = key.substr(sizeof(kUnfinishedUse) - 1);
    if (used.contains(store)) {
      RETURN_IF_ERROR(disk_->Delete(key));
    } else {
      RETURN_IF_ERROR(DropStore(store));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Datasets::NewStore() {
  std::string store;
  {
    absl::MutexLock lock(&mu_);
    store = absl::StrCat(
        absl::Hex(absl::ToUnixMicros(absl::Now()), absl::kZeroPad14), "-",
        stores_++);
  }
  RETURN_IF_ERROR(disk_->Put(UnfinishedKey(store), ""));
  return store;
}

absl::Status Datasets::DropStore(const std::string& store) {
  RETURN_IF_ERROR(disk_->DeletePrefix(absl::StrCat("rows/", store, "/")));
  return disk_->Delete(UnfinishedKey(store));
}

int64_t Datasets::Bytes() const {
  absl::MutexLock lock(&mu_);
  int64_t bytes = pending_bytes_;
  for (const auto& [digest, content] : contents_) bytes += content.bytes;
  for (const auto& [digest, rows] : tokenized_) bytes += rows.bytes;
  return bytes;
}

absl::Status Datasets::CheckRoom(int64_t more) const {
  const int64_t bytes = Bytes();
  if (bytes + more <= options_.max_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("datasets hold ", bytes, " bytes and would hold ",
                   bytes + more, "; accepted: ", options_.max_bytes,
                   " (delete some, or raise the "
                   "server's --dataset_bytes)"));
}

absl::Status Datasets::Forget(const std::string& name) {
  const DatasetInfo info = named_.at(name);
  const bool last =
      std::none_of(named_.begin(), named_.end(), [&](const auto& other) {
        return other.first != name && other.second.digest == info.digest;
      });
  if (!last) {
    RETURN_IF_ERROR(disk_->Delete(DatasetKey(name)));
    named_.erase(name);
    return absl::OkStatus();
  }
  if (options_.in_use != nullptr && options_.in_use(info.digest)) {
    return absl::FailedPreconditionError(
        absl::StrCat("dataset \"", name,
                     "\" is used by a job that has not ended: wait for it, or "
                     "cancel it"));
  }
  // First what a crash in between leaves to the next start.
  const std::string store = contents_.at(info.digest).store;
  RETURN_IF_ERROR(disk_->Put(UnfinishedKey(store), ""));
  RETURN_IF_ERROR(disk_->Delete(DatasetKey(name)));
  named_.erase(name);
  contents_.erase(info.digest);
  for (auto rows = tokenized_.begin(); rows != tokenized_.end();) {
    if (rows->second.info.content != info.digest) {
      ++rows;
      continue;
    }
    const std::string made = rows->second.store;
    RETURN_IF_ERROR(disk_->Put(UnfinishedKey(made), ""));
    RETURN_IF_ERROR(disk_->Delete(TokenizedKey(rows->first)));
    rows = tokenized_.erase(rows);
    RETURN_IF_ERROR(DropStore(made));
  }
  return DropStore(store);
}

void Datasets::Purge() {
  const absl::Time now = absl::Now();
  std::vector<std::string> old;
  for (const auto& [name, info] : named_) {
    if (info.expires <= now) old.push_back(name);
  }
  // What a job still uses, or the disk cannot delete, goes another time.
  for (const std::string& name : old) Forget(name).IgnoreError();
}

absl::StatusOr<DatasetInfo> Datasets::Find(const std::string& name) {
  RETURN_IF_ERROR(opened_);
  Purge();
  const auto found = named_.find(name);
  if (found == named_.end()) {
    std::vector<std::string> names;
    for (const auto& [other, info] : named_) {
      if (names.size() < kNamesTold) names.push_back(other);
    }
    return absl::NotFoundError(absl::StrCat(
        "there is no dataset \"", name, "\"; ",
        names.empty()
            ? "there are none"
            : absl::StrCat("there are: ", absl::StrJoin(names, ", "),
                           named_.size() > kNamesTold ? ", ..." : "")));
  }
  DatasetInfo info = found->second;
  for (const auto& [digest, rows] : tokenized_) {
    if (rows.info.content == info.digest) info.tokenized.push_back(rows.info);
  }
  return info;
}

absl::StatusOr<std::vector<DatasetInfo>> Datasets::List() {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  Purge();
  std::vector<std::string> names;
  for (const auto& [name, info] : named_) names.push_back(name);
  std::vector<DatasetInfo> infos;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(DatasetInfo info, Find(name));
    infos.push_back(std::move(info));
  }
  return infos;
}

absl::StatusOr<DatasetInfo> Datasets::Get(const std::string& name) {
  absl::MutexLock lock(&mu_);
  return Find(name);
}

absl::Status Datasets::Delete(const std::string& name) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(Find(name).status());
  return Forget(name);
}

absl::StatusOr<std::unique_ptr<Datasets::Upload>> Datasets::Begin(
    const std::string& name, absl::Duration keep) {
  RETURN_IF_ERROR(opened_);
  RETURN_IF_ERROR(MeanStore::CheckName(name, "name"));
  if (keep < absl::ZeroDuration() || keep > options_.keep) {
    return absl::InvalidArgumentError(
        absl::StrCat("keep_seconds is ", absl::ToInt64Seconds(keep),
                     "; accepted: 0 (the server's choice) to ",
                     absl::ToInt64Seconds(options_.keep)));
  }
  DatasetInfo info;
  info.name = name;
  info.created = absl::Now();
  info.expires =
      info.created + (keep > absl::ZeroDuration() ? keep : options_.keep);
  {
    absl::MutexLock lock(&mu_);
    Purge();
    if (named_.contains(name)) {
      return absl::AlreadyExistsError(
          absl::StrCat("there is a dataset \"", name,
                       "\": delete it, or take another name"));
    }
    if (named_.size() + uploads_ >= kMaxDatasets || uploads_ >= kMaxUploads) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "there are ", named_.size(), " datasets and ", uploads_,
          " uploads; accepted: ", kMaxDatasets, " and ", kMaxUploads));
    }
    ++uploads_;
  }
  auto store = NewStore();
  if (!store.ok()) {
    absl::MutexLock lock(&mu_);
    --uploads_;
    return store.status();
  }
  return absl::WrapUnique(new Upload(this, std::move(info), *std::move(store)));
}

absl::StatusOr<DatasetInfo> Datasets::Keep(DatasetInfo info,
                                           const std::string& store) {
  absl::MutexLock lock(&mu_);
  if (named_.contains(info.name)) {
    return absl::AlreadyExistsError(
        absl::StrCat("a dataset \"", info.name, "\" has come in the meantime"));
  }
  const auto same = contents_.find(info.digest);
  const bool known = same != contents_.end();
  const std::string kept = known ? same->second.store : store;
  RETURN_IF_ERROR(disk_->Put(DatasetKey(info.name), ToRecord({info, kept})));
  named_[info.name] = info;
  if (known) {
    DropStore(store).IgnoreError();  // else with the next start
  } else {
    contents_[info.digest] = {store, info.bytes};
    disk_->Delete(UnfinishedKey(store)).IgnoreError();
  }
  return Find(info.name);
}

}  // namespace cupola::engine
