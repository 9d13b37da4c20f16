#include "server/engine/mean_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "server/analysis/analysis.h"
#include "server/model/status_macros.h"
#include "storage/record.h"

namespace cupola::engine {
namespace {

using absl::StrCat;
using storage::Array;
using storage::Digest;

constexpr absl::string_view kUse = "mean/";

// "mean/", then model, processing and hook, none of which has a '/', and at
// last the name, which may have some.
std::string ModelPrefix(const Digest& model) {
  return StrCat(kUse, storage::ToHex(model), "/");
}
std::string HooksPrefix(const MeanKey& key) {
  return StrCat(ModelPrefix(key.model), ProcessingName(key.processing), "/");
}
std::string StoredKey(const MeanKey& key) {
  return StrCat(HooksPrefix(key), key.hook, "/", key.name);
}

// What a stored mean is checked against: it is not in the result cache.
storage::CacheKey RecordKey(const std::string& key) {
  return {0, static_cast<uint8_t>(analysis::Operation::kMeanActivation),
          storage::Hasher("stored mean/1").AddBytes(key).Finish()};
}

Array CountArray(int64_t count) {
  Array array{storage::DType::kInt64, {1}, std::string(sizeof(count), '\0')};
  std::memcpy(array.bytes.data(), &count, sizeof(count));
  return array;
}

// The mean itself, its count and, so that the index can be read back, the parts
// of its key.
absl::StatusOr<MeanStore::Found> Decode(const std::string& stored_key,
                                        const std::string& bytes) {
  ASSIGN_OR_RETURN(storage::StoredRecord stored,
                   storage::DecodeRecord(RecordKey(stored_key), bytes));
  if (stored.record.size() != 2 || stored.record[1].bytes.size() != 8) {
    return absl::DataLossError(
        StrCat("a stored mean of another form: ", stored_key));
  }
  MeanStore::Found found;
  found.value = std::move(stored.record[0]);
  std::memcpy(&found.info.count, stored.record[1].bytes.data(), 8);
  found.info.shape = found.value.shape;
  found.info.digest = DigestOfMean(found.value);
  found.info.written = stored.written;
  return found;
}

// The inverse of StoredKey.
MeanKey ParseKey(absl::string_view stored) {
  MeanKey key;
  stored.remove_prefix(kUse.size());
  for (uint8_t& byte : key.model) {
    byte = static_cast<uint8_t>(
        std::stoi(std::string(stored.substr(0, 2)), nullptr, 16));
    stored.remove_prefix(2);
  }
  stored.remove_prefix(1);
  const auto next = [&stored] {
    const size_t slash = stored.find('/');
    const std::string part(stored.substr(0, slash));
    stored.remove_prefix(slash + 1);
    return part;
  };
  key.processing =
      next() == "folded" ? model::Processing::kFolded : model::Processing::kRaw;
  key.hook = next();
  key.name = std::string(stored);
  return key;
}

int64_t Bytes(const MeanInfo& info) {
  int64_t values = 1;
  for (int64_t size : info.shape) values *= size;
  return values * static_cast<int64_t>(sizeof(float));
}

}  // namespace

storage::Digest DigestOfMean(const Array& value) {
  return storage::Hasher("mean value/1")
      .AddInts(value.shape.data(), value.shape.size())
      .AddBytes(value.bytes)
      .Finish();
}

std::unique_ptr<MeanStore> MeanStore::Open(const std::string& directory) {
  auto store = absl::WrapUnique(new MeanStore());
  if (directory.empty()) return store;
  auto disk = storage::DurableStore::Open(directory);
  if (disk.ok()) {
    store->disk_ = *std::move(disk);
    store->opened_ = store->ReadIndex();
  } else {
    store->opened_ = disk.status();
  }
  return store;
}

absl::Status MeanStore::ReadIndex() {
  ASSIGN_OR_RETURN(const auto entries, disk_->Scan(kUse));
  absl::MutexLock lock(&mu_);
  for (const auto& [key, bytes] : entries) {
    // One that is damaged says so when it is asked for; it can be replaced.
    absl::StatusOr<Found> found = Decode(key, bytes);
    MeanInfo info = found.ok() ? std::move(found->info) : MeanInfo{};
    info.key = ParseKey(key);
    index_[key] = std::move(info);
  }
  return absl::OkStatus();
}

absl::Status MeanStore::CheckName(const std::string& name,
                                  const std::string& field) {
  const bool control = std::any_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (!name.empty() && name.size() <= kMaxNameBytes && !control) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      StrCat(field, ": ", name.size(), " bytes",
             control ? " with control characters" : "", "; accepted: 1 to ",
             kMaxNameBytes, " bytes of text"));
}

absl::StatusOr<MeanInfo> MeanStore::Put(const MeanKey& key, const Array& value,
                                        int64_t count) {
  RETURN_IF_ERROR(opened_);
  RETURN_IF_ERROR(CheckName(key.name, "name"));
  const std::string stored_key = StoredKey(key);
  const MeanInfo info{key, value.shape, count, DigestOfMean(value),
                      absl::Now()};
  ASSIGN_OR_RETURN(
      std::string bytes,
      storage::EncodeRecord(RecordKey(stored_key), {value, CountArray(count)},
                            info.written));
  absl::MutexLock lock(&mu_);
  int64_t others = 0, used = 0;
  for (const auto& [other, its] : index_) {
    if (other == stored_key) continue;
    ++others;
    used += Bytes(its);
  }
  if (others + 1 > kMaxMeans || used + Bytes(info) > kMaxBytes) {
    return absl::ResourceExhaustedError(StrCat(
        "name: with \"", key.name, "\" the server would keep ", others + 1,
        " means of ", used + Bytes(info), " bytes; accepted: ", kMaxMeans,
        " means of ", kMaxBytes, " bytes; delete some"));
  }
  if (disk_ != nullptr) {
    RETURN_IF_ERROR(disk_->Put(stored_key, bytes));
  } else {
    memory_[stored_key] = std::move(bytes);
  }
  index_[stored_key] = info;
  return info;
}

absl::StatusOr<std::string> MeanStore::Read(const std::string& key) const {
  if (disk_ != nullptr) return disk_->Get(key);
  return memory_.at(key);
}

absl::StatusOr<MeanStore::Found> MeanStore::Find(const MeanKey& key) const {
  RETURN_IF_ERROR(opened_);
  absl::ReaderMutexLock lock(&mu_);
  auto chosen = index_.find(StoredKey(key));
  if (chosen == index_.end()) {
    std::vector<std::string> hooks, names;
    auto only = index_.end();
    const std::string prefix = HooksPrefix(key);
    for (auto it = index_.lower_bound(prefix);
         it != index_.end() && absl::StartsWith(it->first, prefix); ++it) {
      const MeanKey& other = it->second.key;
      if (other.name == key.name) {
        only = it;
        hooks.push_back(other.hook);
      } else {
        names.push_back(StrCat("\"", other.name, "\" of ", other.hook));
      }
    }
    if (hooks.size() != 1) {
      constexpr size_t kMost = 20;
      if (names.size() > kMost) names.resize(kMost);
      return absl::NotFoundError(StrCat(
          "\"", key.name, "\" is no stored mean of ", key.hook, " in ",
          ProcessingName(key.processing), " processing of this model; ",
          hooks.empty()
              ? StrCat("there is ",
                       names.empty() ? "none" : absl::StrJoin(names, ", "))
              : StrCat("it is one of ", absl::StrJoin(hooks, ", "))));
    }
    chosen = only;
  }
  ASSIGN_OR_RETURN(const std::string bytes, Read(chosen->first));
  ASSIGN_OR_RETURN(Found found, Decode(chosen->first, bytes));
  found.info.key = chosen->second.key;
  return found;
}

absl::StatusOr<std::vector<MeanInfo>> MeanStore::List(
    const Digest& model) const {
  RETURN_IF_ERROR(opened_);
  absl::ReaderMutexLock lock(&mu_);
  const std::string prefix = ModelPrefix(model);
  std::vector<MeanInfo> means;
  for (auto it = index_.lower_bound(prefix);
       it != index_.end() && absl::StartsWith(it->first, prefix); ++it) {
    means.push_back(it->second);
  }
  return means;
}

absl::Status MeanStore::Delete(const MeanKey& key) {
  RETURN_IF_ERROR(opened_);
  const std::string stored_key = StoredKey(key);
  absl::MutexLock lock(&mu_);
  if (index_.count(stored_key) == 0) {
    return absl::NotFoundError(
        StrCat("\"", key.name, "\" is no stored mean of ", key.hook, " in ",
               ProcessingName(key.processing), " processing of this model"));
  }
  if (disk_ != nullptr) RETURN_IF_ERROR(disk_->Delete(stored_key));
  index_.erase(stored_key);
  memory_.erase(stored_key);
  return absl::OkStatus();
}

}  // namespace cupola::engine
