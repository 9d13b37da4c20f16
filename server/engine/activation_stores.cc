#include "server/engine/activation_stores.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/dataset_records.h"
#include "server/engine/job_record.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

namespace fs = std::filesystem;
using model::Json;

constexpr char kEnd[] = ".activations";
constexpr int kVersion = 1;

std::string ToText(const StoreAbout& about) {
  return Json({{"version", kVersion},
               {"key", storage::ToHex(about.key)},
               {"provenance", ToJson(about.provenance)},
               {"d_sae", about.d_sae},
               {"tokens", about.tokens},
               {"chunks", about.chunks},
               {"created", absl::ToUnixMicros(about.created)}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<StoreAbout> AboutFrom(const std::string& text) {
  StoreAbout about;
  ASSIGN_OR_RETURN(const Json json, model::ParseJson(text, "a store"));
  try {
    if (json.at("version") != kVersion) {
      return absl::DataLossError("the store is of another version");
    }
    about.key = DigestFromHex(json.at("key").get<std::string>());
    about.provenance = ProvenanceFromJson(json.at("provenance"));
    about.d_sae = json.at("d_sae");
    about.tokens = json.at("tokens");
    about.chunks = json.at("chunks");
    about.created = absl::FromUnixMicros(json.at("created"));
  } catch (const Json::exception& error) {
    return absl::DataLossError(error.what());
  }
  return about;
}

absl::Status NoStore(const std::string& key) {
  return absl::NotFoundError(absl::StrCat(
      "there is no store \"", key, "\"; accepted: a key that List tells"));
}

}  // namespace

std::unique_ptr<ActivationStores> ActivationStores::Open(Options options) {
  auto stores = absl::WrapUnique(new ActivationStores(std::move(options)));
  absl::MutexLock lock(&stores->mu_);
  stores->ReadDirectory();
  return stores;
}

void ActivationStores::ReadDirectory() {
  if (options_.directory.empty()) {
    opened_ = absl::FailedPreconditionError(
        "this server keeps nothing on the disk, as it has no --cache_dir");
    return;
  }
  std::error_code error;
  fs::create_directories(options_.directory, error);
  fs::permissions(options_.directory, fs::perms::owner_all, error);
  if (error) {
    opened_ = absl::InternalError(absl::StrCat(
        "cannot create ", options_.directory, ": ", error.message()));
    return;
  }
  for (const auto& entry : fs::directory_iterator(options_.directory, error)) {
    if (entry.path().extension() != kEnd) continue;
    auto file = storage::ChunkFile::Open(entry.path());
    if (!file.ok()) continue;
    auto about = AboutFrom((*file)->about());
    if (!about.ok() || PathOf(about->key) != entry.path()) continue;
    const storage::Digest key = about->key;
    stores_[key] = absl::WrapUnique(
        new ActivationStore(*std::move(about), *std::move(file),
                            [this](int64_t more) { return HasRoom(more); }));
  }
  if (error) {
    opened_ = absl::InternalError(absl::StrCat(
        "cannot read ", options_.directory, ": ", error.message()));
  }
}

std::string ActivationStores::PathOf(const storage::Digest& key) const {
  return absl::StrCat(options_.directory, "/", storage::ToHex(key), kEnd);
}

absl::StatusOr<std::shared_ptr<ActivationStore>> ActivationStores::Make(
    const StoreAbout& about) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  const auto found = stores_.find(about.key);
  if (found != stores_.end()) return found->second;
  Purge();
  if (stores_.size() >= kMaxStores) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "there are ", stores_.size(),
        " stores of activations; accepted: ", kMaxStores, ": delete some"));
  }
  const std::string path = PathOf(about.key);
  // What could not be read when the server started.
  std::error_code error;
  fs::remove(path, error);
  ASSIGN_OR_RETURN(auto file, storage::ChunkFile::Create(path, ToText(about)));
  std::shared_ptr<ActivationStore> made = absl::WrapUnique(new ActivationStore(
      about, std::move(file), [this](int64_t more) { return HasRoom(more); }));
  stores_[about.key] = made;
  return made;
}

std::shared_ptr<const ActivationStore> ActivationStores::Find(
    const storage::Digest& key) {
  absl::MutexLock lock(&mu_);
  const auto found = stores_.find(key);
  return found == stores_.end() ? nullptr : found->second;
}

absl::StatusOr<std::shared_ptr<const ActivationStore>> ActivationStores::Get(
    const std::string& key) {
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(opened_);
    Purge();
  }
  auto found = Find(DigestFromHex(key));
  if (found == nullptr) return NoStore(key);
  return found;
}

absl::StatusOr<std::vector<StoreInfo>> ActivationStores::List() {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  Purge();
  std::vector<StoreInfo> infos;
  for (const auto& [key, store] : stores_) infos.push_back(store->Info());
  std::sort(infos.begin(), infos.end(),
            [](const auto& a, const auto& b) { return a.created < b.created; });
  return infos;
}

absl::Status ActivationStores::Delete(const std::string& key) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(opened_);
  const auto found = stores_.find(DigestFromHex(key));
  if (found == stores_.end()) return NoStore(key);
  if (options_.in_use != nullptr && options_.in_use(found->first)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a job writes the store \"", key, "\": wait for it, or cancel it"));
  }
  Remove(found);
  return absl::OkStatus();
}

void ActivationStores::Remove(Stores::iterator store) {
  std::error_code error;
  fs::remove(PathOf(store->first), error);
  stores_.erase(store);
}

void ActivationStores::Purge() {
  if (options_.keep == absl::InfiniteDuration()) return;
  const absl::Time now = absl::Now();
  for (auto store = stores_.begin(); store != stores_.end();) {
    const auto next = std::next(store);
    const bool expired = store->second->about().created + options_.keep < now;
    if (expired && !(options_.in_use && options_.in_use(store->first))) {
      Remove(store);
    }
    store = next;
  }
}

int64_t ActivationStores::Bytes() const {
  absl::MutexLock lock(&mu_);
  int64_t bytes = 0;
  for (const auto& [key, store] : stores_) bytes += store->file_->bytes();
  return bytes;
}

absl::Status ActivationStores::HasRoom(int64_t more) const {
  const int64_t bytes = Bytes();
  if (more <= options_.max_bytes - bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the stores of activations take ", bytes, " bytes, and ", more,
      " come; accepted: ", options_.max_bytes, ": delete some"));
}

}  // namespace cupola::engine
