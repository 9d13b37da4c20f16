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
constexpr char kRowsUse[] = "rows/";
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

Datasets::Datasets(Options options)
    : options_(std::move(options)),
      quota_(std::make_shared<ByteQuota>(ByteQuota::Options{
          options_.max_bytes, "datasets",
          "delete some, or raise the server's --dataset_bytes"})) {}

std::unique_ptr<Datasets> Datasets::Open(Options options) {
  auto datasets = absl::WrapUnique(new Datasets(std::move(options)));
  absl::MutexLock lock(&datasets->mu_);
  const std::string& directory = datasets->options_.directory;
  if (directory.empty()) {
    datasets->opened_ = absl::FailedPreconditionError(
        "datasets need a directory: start the server with --cache_dir");
    return datasets;
  }
  auto disk = storage::DurableStore::Open(
      directory, storage::DurableStore::Values::kBlocks);
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
  bool damaged = false;
  ASSIGN_OR_RETURN(const auto datasets, disk_->Scan(kDatasetUse));
  for (const auto& [key, text] : datasets) {
    const std::string name = key.substr(sizeof(kDatasetUse) - 1);
    absl::StatusOr<DatasetRecord> record = ParseDataset(key, text);
    if (!record.ok()) {
      damaged = true;
      named_[name].name = name;
      named_[name].error = std::string(record.status().message());
      continue;
    }
    record->info.name = name;
    const bool first = used.insert(record->store).second;
    const int64_t bytes =
        record->info.bytes + storage::RowWriter::kRowBytes * record->info.rows;
    if (first) quota_->Add(bytes);
    contents_[record->info.digest] = {record->store, bytes};
    named_[name] = std::move(record->info);
  }
  ASSIGN_OR_RETURN(const auto tokenized, disk_->Scan(kTokenizedUse));
  for (const auto& [key, text] : tokenized) {
    absl::StatusOr<TokenizedRecord> record = ParseTokenized(key, text);
    // Of no use: damaged, and made anew when somebody asks; or the process
    // ended while it deleted the last dataset of these documents.
    if (!record.ok() || !contents_.contains(record->info.content)) {
      RETURN_IF_ERROR(disk_->Delete(key));
      continue;
    }
    used.insert(record->store);
    quota_->Add(record->bytes);
    const storage::Digest digest = record->info.digest;
    tokenized_[digest] = {std::move(record->info), record->store,
                          record->bytes};
  }
  // Which rows are a damaged record's is not known: they stay until it is
  // deleted.
  return damaged ? absl::OkStatus() : DropOrphans(used);
}

absl::Status Datasets::DropOrphans(const std::set<std::string>& used) {
  ASSIGN_OR_RETURN(const std::vector<std::string> stores,
                   disk_->Folders(kRowsUse));
  for (const std::string& store : stores) {
    if (!used.contains(store)) RETURN_IF_ERROR(DropStore(store));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> unfinished,
                   disk_->Keys(kUnfinishedUse));
  for (const std::string& key : unfinished) {
    RETURN_IF_ERROR(disk_->Delete(key));
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
  RETURN_IF_ERROR(disk_->DeletePrefix(absl::StrCat(kRowsUse, store, "/")));
  return disk_->Delete(UnfinishedKey(store));
}

void Datasets::Free(std::vector<Stored> stores) {
  for (const auto& [store, bytes] : stores) {
    if (DropStore(store).ok()) {
      quota_->Add(-bytes);
    } else {
      absl::MutexLock lock(&mu_);
      leftovers_.emplace_back(store, bytes);
    }
  }
}

absl::Status Datasets::Reserve(int64_t more, ByteQuota::Share* share) {
  if (share->Grow(more).ok()) return absl::OkStatus();
  Purge();
  return share->Grow(more);
}

absl::StatusOr<std::vector<Datasets::Stored>> Datasets::Forget(
    const std::string& name) {
  const DatasetInfo info = named_.at(name);
  std::vector<storage::DurableStore::Change> changes = {{DatasetKey(name), {}}};
  std::vector<Stored> stores;
  std::vector<storage::Digest> rows;
  const bool last =
      info.error.empty() &&
      std::none_of(named_.begin(), named_.end(), [&](const auto& other) {
        return other.first != name && other.second.error.empty() &&
               other.second.digest == info.digest;
      });
  if (last) {
    if (options_.in_use != nullptr && options_.in_use(info.digest)) {
      return absl::FailedPreconditionError(
          absl::StrCat("dataset \"", name,
                       "\" is used by a job that has not ended: wait for it, "
                       "or cancel it"));
    }
    const Content& content = contents_.at(info.digest);
    stores.emplace_back(content.store, content.bytes);
    for (const auto& [digest, made] : tokenized_) {
      if (made.info.content != info.digest) continue;
      rows.push_back(digest);
      changes.push_back({TokenizedKey(digest), {}});
      stores.emplace_back(made.store, made.bytes);
    }
    // What a crash in between leaves to the next start.
    for (const auto& [store, bytes] : stores) {
      changes.push_back({UnfinishedKey(store), ""});
    }
  }
  RETURN_IF_ERROR(disk_->Apply(changes));
  named_.erase(name);
  if (last) contents_.erase(info.digest);
  for (const storage::Digest& digest : rows) tokenized_.erase(digest);
  return stores;
}

void Datasets::Purge() {
  std::vector<Stored> stores;
  {
    absl::MutexLock lock(&mu_);
    stores = std::exchange(leftovers_, {});
    const absl::Time now = absl::Now();
    std::vector<std::string> old;
    for (const auto& [name, info] : named_) {
      if (info.expires <= now) old.push_back(name);
    }
    for (const std::string& name : old) {
      // What a job still uses, or the disk cannot delete, goes another time.
      const auto forgotten = Forget(name);
      if (!forgotten.ok()) continue;
      stores.insert(stores.end(), forgotten->begin(), forgotten->end());
    }
  }
  Free(std::move(stores));
}

DatasetInfo Datasets::Told(const DatasetInfo& info) const {
  DatasetInfo told = info;
  for (const auto& [digest, rows] : tokenized_) {
    if (rows.info.content == info.digest) told.tokenized.push_back(rows.info);
  }
  return told;
}

absl::StatusOr<DatasetInfo> Datasets::Find(const std::string& name) const {
  RETURN_IF_ERROR(opened_);
  const auto found = named_.find(name);
  if (found != named_.end()) return Told(found->second);
  std::vector<std::string> names;
  for (const auto& [other, info] : named_) {
    if (names.size() < kNamesTold) names.push_back(other);
  }
  return absl::NotFoundError(absl::StrCat(
      "there is no dataset \"", name, "\"; ",
      names.empty() ? "there are none"
                    : absl::StrCat("there are: ", absl::StrJoin(names, ", "),
                                   named_.size() > kNamesTold ? ", ..." : "")));
}

absl::StatusOr<std::vector<DatasetInfo>> Datasets::List() {
  Purge();
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  std::vector<DatasetInfo> infos;
  for (const auto& [name, info] : named_) infos.push_back(Told(info));
  return infos;
}

absl::StatusOr<DatasetInfo> Datasets::Get(const std::string& name) {
  Purge();
  absl::MutexLock lock(&mu_);
  return Find(name);
}

absl::Status Datasets::Delete(const std::string& name, const Actor& by) {
  Purge();
  std::vector<Stored> stores;
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const DatasetInfo info, Find(name));
    RETURN_IF_ERROR(
        CheckOwner(by, info.owner, absl::StrCat("dataset \"", name, "\"")));
    ASSIGN_OR_RETURN(stores, Forget(name));
  }
  Free(std::move(stores));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Datasets::Upload>> Datasets::Begin(
    const std::string& name, absl::Duration keep, const Sender& sender) {
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
  info.owner = sender.owner;
  Purge();
  {
    absl::MutexLock lock(&mu_);
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
    size_t& mine = uploads_of_[sender.client];
    if (mine >= kMaxUploadsOfClient) {
      return absl::ResourceExhaustedError(
          absl::StrCat("this client has ", mine,
                       " uploads under way; accepted: ", kMaxUploadsOfClient));
    }
    ++uploads_;
    ++mine;
  }
  // From here on it is this that counts one less at its end.
  auto upload = absl::WrapUnique(
      new Upload(this, std::move(info), sender.client,
                 keep > absl::ZeroDuration() ? keep : options_.keep));
  RETURN_IF_ERROR(upload->Open());
  return upload;
}

absl::StatusOr<DatasetInfo> Datasets::Keep(DatasetInfo info,
                                           const std::string& store,
                                           ByteQuota::Share* share,
                                           bool* kept) {
  absl::MutexLock lock(&mu_);
  if (named_.contains(info.name)) {
    return absl::AlreadyExistsError(
        absl::StrCat("a dataset \"", info.name, "\" has come in the meantime"));
  }
  const auto same = contents_.find(info.digest);
  const bool known = same != contents_.end();
  RETURN_IF_ERROR(
      disk_->Put(DatasetKey(info.name),
                 ToRecord({info, known ? same->second.store : store})));
  named_[info.name] = info;
  *kept = !known;
  if (!known) {
    contents_[info.digest] = {store, share->bytes()};
    share->Keep();
    disk_->Delete(UnfinishedKey(store)).IgnoreError();
  }
  return Told(info);
}

}  // namespace cupola::engine
