#include "server/service/registry.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "cupola/v1/catalog_config.pb.h"
#include "google/protobuf/text_format.h"
#include "server/engine/file_stamp.h"
#include "server/model/json.h"
#include "server/model/safetensors.h"
#include "server/model/status_macros.h"
#include "server/service/catalog_file.h"
#include "server/service/log.h"

namespace cupola::service {
namespace {

namespace fs = std::filesystem;
using absl::InvalidArgumentError;
using absl::StrCat;

constexpr absl::string_view kRegistered = "registered/";
constexpr absl::string_view kUploaded = "uploaded/";
constexpr size_t kMaxCfgBytes = 1 << 20;

const std::string& NameOf(const v1::RegisterRequest& entry) {
  return entry.has_model() ? entry.model().name() : entry.dictionary().name();
}
const std::string& PathOf(const v1::RegisterRequest& entry) {
  return entry.has_model() ? entry.model().path() : entry.dictionary().path();
}

// The entry's spec, checked as the catalog file's are; a relative path starts
// at `folder`.
absl::StatusOr<engine::CatalogSpec> SpecOf(const v1::RegisterRequest& entry,
                                           const std::string& folder,
                                           const std::string& root) {
  v1::CatalogConfig config;
  if (entry.has_model()) {
    *config.add_model() = entry.model();
  } else {
    *config.add_dictionary() = entry.dictionary();
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  absl::StatusOr<engine::CatalogSpec> spec =
      ParseCatalog(text, StrCat(folder, "/entry"), root);
  if (spec.ok()) return spec;
  absl::string_view message = spec.status().message();
  absl::ConsumePrefix(&message, StrCat(folder, "/entry: "));
  return absl::Status(spec.status().code(), message);
}

// That a path from a client stays below the root, with all files it leads to:
// links may point to targets inside it, as those of Hugging Face's snapshots.
absl::Status CheckInside(const std::string& path, const std::string& root) {
  for (const fs::path& part : fs::path(path)) {
    if (part == "..") {
      return InvalidArgumentError(
          StrCat("path is \"", path, "\"; accepted: without \"..\""));
    }
  }
  std::error_code failed;
  const fs::path top = fs::canonical(root, failed);
  const fs::path folder = fs::canonical(top / path, failed);
  const auto [below, rest] =
      std::mismatch(top.begin(), top.end(), folder.begin(), folder.end());
  if (root.empty() || failed || below != top.end() ||
      !fs::is_directory(folder, failed)) {
    return InvalidArgumentError(StrCat("path is \"", path,
                                       "\"; accepted: a folder below the "
                                       "server's model root"));
  }
  for (fs::directory_iterator it(folder, failed), end; !failed && it != end;
       it.increment(failed)) {
    if (!it->is_symlink()) continue;
    const fs::path target = fs::weakly_canonical(it->path(), failed);
    const auto [stop, unused] =
        std::mismatch(top.begin(), top.end(), target.begin(), target.end());
    if (failed || stop != top.end()) {
      return InvalidArgumentError(StrCat(
          "path is \"", path, "\", where ", it->path().filename().string(),
          " is a link; accepted: links to what is below the server's "
          "model root"));
    }
  }
  return absl::OkStatus();
}

// What is certain to fail at every load is refused at once.
absl::Status CheckUpload(const std::string& folder,
                         const engine::DictionarySpec& spec,
                         const engine::Engine& engine) {
  const auto opened = model::SafetensorsSet::OpenFolder(folder, "sae_weights");
  if (!opened.ok()) {
    return InvalidArgumentError("piece: together they are no safetensors file");
  }
  engine::DictionarySpec there = spec;
  there.path = folder;
  const absl::Status checked = engine.CheckFiles(there);
  return absl::Status(
      checked.code(),
      absl::StrReplaceAll(checked.message(), {{folder, "upload"}}));
}

}  // namespace

Registry::Upload::~Upload() {
  if (spool == nullptr) return;
  absl::MutexLock lock(&registry->mu_);
  registry->uploading_ -= spool->bytes();
}

Registry::Registry(const RegistryOptions& options, engine::CatalogSpec file,
                   engine::Engine* engine)
    : options_(options), engine_(engine), file_(std::move(file)) {
  // Kept entries tell it to later servers, which may start elsewhere.
  if (!options_.upload_directory.empty()) {
    options_.upload_directory = fs::absolute(options_.upload_directory);
  }
}

std::unique_ptr<Registry> Registry::Open(const RegistryOptions& options,
                                         engine::CatalogSpec file,
                                         engine::Engine* engine) {
  auto registry =
      absl::WrapUnique(new Registry(options, std::move(file), engine));
  if (!options.state_directory.empty()) {
    auto store = storage::DurableStore::Open(options.state_directory);
    if (store.ok()) {
      registry->store_ = *std::move(store);
    } else {
      registry->opened_ = store.status();
    }
  }
  registry->Restore();
  return registry;
}

void Registry::Restore() {
  absl::MutexLock lock(&mu_);
  if (!options_.upload_directory.empty()) {
    std::error_code failed;
    for (fs::directory_iterator it(options_.upload_directory, failed), end;
         !failed && it != end; it.increment(failed)) {
      std::error_code ignored;
      if (absl::StartsWith(it->path().filename().string(),
                           UploadSpool::kPrefix)) {
        fs::remove_all(it->path(), ignored);
      }
    }
  }
  if (!opened_.ok()) {
    LogError("registered entries cannot be read",
             {{"reason", std::string(opened_.message())}});
  }
  if (store_ == nullptr) return;
  // Models first: "model" entries are what dictionaries name.
  for (const bool models : {true, false}) {
    for (const absl::string_view prefix : {kRegistered, kUploaded}) {
      const auto entries = store_->Scan(prefix);
      if (!entries.ok()) {
        opened_.Update(entries.status());
        continue;
      }
      for (const auto& [key, bytes] : *entries) {
        Kept kept;
        kept.uploaded = prefix == kUploaded;
        if (!kept.entry.ParseFromString(bytes) ||
            kept.entry.has_model() != models) {
          continue;
        }
        const std::string name = NameOf(kept.entry);
        if (kept.uploaded) {
          std::error_code failed;
          const auto size = fs::file_size(
              fs::path(PathOf(kept.entry)) / "sae_weights.safetensors", failed);
          if (!failed) kept.bytes = static_cast<int64_t>(size);
        }
        kept.stamp = engine::FileStamp(PathOf(kept.entry));
        // The root may be another one now, and links others.
        absl::Status set = kept.uploaded ? absl::OkStatus()
                                         : CheckInside(PathOf(kept.entry),
                                                       options_.model_root);
        std::map<std::string, Kept> with = kept_;
        with[name] = std::move(kept);
        if (set.ok()) {
          const auto merged = Merge(file_, with);
          set = merged.ok() ? engine_->SetCatalog(*merged) : merged.status();
        }
        if (set.ok()) {
          kept_ = std::move(with);
        } else {
          LogWarning("registered entry left out",
                     {{"name", name}, {"reason", std::string(set.message())}});
        }
      }
    }
  }
}

absl::StatusOr<engine::CatalogSpec> Registry::Merge(
    const engine::CatalogSpec& file, const std::map<std::string, Kept>& kept) {
  engine::CatalogSpec merged = file;
  for (const auto& [name, one] : kept) {
    ASSIGN_OR_RETURN(engine::CatalogSpec spec, SpecOf(one.entry, "/", ""));
    for (auto& model : spec.models) model.stamp = one.stamp;
    for (auto& dictionary : spec.dictionaries) dictionary.stamp = one.stamp;
    std::move(spec.models.begin(), spec.models.end(),
              std::back_inserter(merged.models));
    std::move(spec.dictionaries.begin(), spec.dictionaries.end(),
              std::back_inserter(merged.dictionaries));
  }
  return merged;
}

absl::Status Registry::Reload() {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(engine::CatalogSpec file,
                   ReadCatalogFile(options_.catalog, options_.model_root));
  engine::StampFiles(&file);
  std::map<std::string, Kept> kept = kept_;
  for (auto& [name, one] : kept) {
    one.stamp = engine::FileStamp(PathOf(one.entry));
  }
  ASSIGN_OR_RETURN(const engine::CatalogSpec merged, Merge(file, kept));
  RETURN_IF_ERROR(engine_->SetCatalog(merged));
  file_ = std::move(file);
  kept_ = std::move(kept);
  return absl::OkStatus();
}

absl::Status Registry::CheckFree(const std::string& name) const {
  const auto has = [&name](const auto& specs) {
    return std::any_of(specs.begin(), specs.end(),
                       [&](const auto& spec) { return spec.name == name; });
  };
  if (kept_.count(name) == 0 && !has(file_.models) &&
      !has(file_.dictionaries)) {
    return absl::OkStatus();
  }
  return absl::AlreadyExistsError(
      StrCat("name is \"", name,
             "\", which the catalog has; unregister that "
             "or take another one"));
}

absl::Status Registry::Add(const std::string& name, Kept kept) {
  RETURN_IF_ERROR(opened_);
  kept.stamp = engine::FileStamp(PathOf(kept.entry));
  std::map<std::string, Kept> with = kept_;
  const std::string key = StrCat(kept.uploaded ? kUploaded : kRegistered, name);
  const std::string value = kept.entry.SerializeAsString();
  with[name] = std::move(kept);
  ASSIGN_OR_RETURN(const engine::CatalogSpec merged, Merge(file_, with));
  RETURN_IF_ERROR(engine_->SetCatalog(merged));
  if (store_ != nullptr) {
    const absl::Status stored = store_->Put(key, value);
    if (!stored.ok()) {
      const auto before = Merge(file_, kept_);
      if (before.ok()) (void)engine_->SetCatalog(*before);
      return stored;
    }
  }
  kept_ = std::move(with);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Registry::Register(
    const v1::RegisterRequest& request) {
  if (!request.has_model() && !request.has_dictionary()) {
    return InvalidArgumentError(
        "entry is not set; accepted: a model or a dictionary");
  }
  if (options_.model_root.empty()) {
    return absl::FailedPreconditionError(
        "this server registers nothing: it was started without --model_root, "
        "the folder below which registered paths are");
  }
  // Names and types first; the path is not resolved where it does not exist.
  RETURN_IF_ERROR(
      SpecOf(request, options_.model_root, options_.model_root).status());
  RETURN_IF_ERROR(CheckInside(PathOf(request), options_.model_root));
  Kept kept;
  kept.entry = request;
  std::error_code failed;
  const std::string path =
      fs::canonical(fs::path(options_.model_root) / PathOf(request), failed);
  if (request.has_model()) {
    kept.entry.mutable_model()->set_path(path);
  } else {
    kept.entry.mutable_dictionary()->set_path(path);
  }
  const std::string name = NameOf(request);
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(CheckFree(name));
  RETURN_IF_ERROR(Add(name, std::move(kept)));
  return name;
}

absl::Status Registry::Unregister(const std::string& name) {
  absl::MutexLock lock(&mu_);
  const auto found = kept_.find(name);
  if (found == kept_.end()) {
    RETURN_IF_ERROR(engine_->Describe(name).status());
    return absl::FailedPreconditionError(
        StrCat("\"", name,
               "\" was not registered: it is an entry of the "
               "server's catalog file"));
  }
  std::vector<std::string> dependants;
  for (const auto& spec : file_.dictionaries) {
    if (spec.model == name) dependants.push_back(spec.name);
  }
  for (const auto& [other, kept] : kept_) {
    if (kept.entry.has_dictionary() &&
        kept.entry.dictionary().model() == name) {
      dependants.push_back(other);
    }
  }
  if (!dependants.empty()) {
    return absl::FailedPreconditionError(StrCat(
        "\"", name, "\" has dictionaries: ", absl::StrJoin(dependants, ", "),
        "; unregister them first"));
  }
  const Kept leaving = found->second;
  std::map<std::string, Kept> without = kept_;
  without.erase(name);
  ASSIGN_OR_RETURN(const engine::CatalogSpec merged, Merge(file_, without));
  RETURN_IF_ERROR(engine_->SetCatalog(merged));
  if (store_ != nullptr) {
    const absl::Status deleted = store_->Delete(
        StrCat(leaving.uploaded ? kUploaded : kRegistered, name));
    if (!deleted.ok()) {
      const auto before = Merge(file_, kept_);
      if (before.ok()) (void)engine_->SetCatalog(*before);
      return deleted;
    }
  }
  kept_ = std::move(without);
  if (leaving.uploaded) {
    std::error_code ignored;  // an open file stays readable to its requests
    fs::remove_all(PathOf(leaving.entry), ignored);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Registry::Upload>> Registry::BeginUpload(
    const v1::UploadDictionaryRequest::Header& header) {
  if (options_.upload_directory.empty()) {
    return absl::FailedPreconditionError(
        "this server takes no uploads: it was started without --upload_dir and "
        "without --cache_dir");
  }
  const v1::DictionaryEntry& entry = header.dictionary();
  if (!entry.path().empty()) {
    return InvalidArgumentError(
        StrCat("header.dictionary.path is \"", entry.path(),
               "\"; accepted: none, the server chooses it"));
  }
  v1::RegisterRequest placed;
  *placed.mutable_dictionary() = entry;
  placed.mutable_dictionary()->set_path("upload");
  RETURN_IF_ERROR(SpecOf(placed, "/", "").status());
  RETURN_IF_ERROR(engine_->Describe(entry.model()).status());
  if (header.cfg().size() > kMaxCfgBytes) {
    return InvalidArgumentError(StrCat("header.cfg: ", header.cfg().size(),
                                       " bytes; accepted: ", kMaxCfgBytes));
  }
  const auto cfg = model::ParseJson(header.cfg(), "header.cfg");
  if (!cfg.ok()) return cfg.status();
  if (header.bytes() <= 0) {
    return InvalidArgumentError(
        StrCat("header.bytes is ", header.bytes(),
               "; accepted: the size of sae_weights.safetensors"));
  }
  auto upload = std::make_shared<Upload>();
  upload->registry = this;
  upload->entry = entry;
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(opened_);
    RETURN_IF_ERROR(CheckFree(entry.name()));
    int64_t used = uploading_;
    for (const auto& [name, kept] : kept_) used += kept.bytes;
    if (header.bytes() > options_.upload_bytes - used) {
      return absl::ResourceExhaustedError(
          StrCat("header.bytes is ", header.bytes(), ", beside ", used,
                 " bytes of other uploads; accepted: ", options_.upload_bytes,
                 " together (--upload_bytes)"));
    }
    // Counted before it takes room.
    uploading_ += header.bytes();
  }
  auto spool = UploadSpool::Create(options_.upload_directory, header.cfg(),
                                   header.bytes());
  if (!spool.ok()) {
    absl::MutexLock lock(&mu_);
    uploading_ -= header.bytes();
    return spool.status();
  }
  upload->spool = *std::move(spool);
  return upload;
}

absl::StatusOr<std::string> Registry::FinishUpload(Upload& upload,
                                                   absl::string_view sha256) {
  const std::string name = upload.entry.name();
  const std::string folder = StrCat(options_.upload_directory, "/dictionary-",
                                    absl::StrReplaceAll(name, {{"/", "%"}}));
  Kept kept;
  kept.uploaded = true;
  kept.bytes = upload.spool->bytes();
  *kept.entry.mutable_dictionary() = upload.entry;
  kept.entry.mutable_dictionary()->set_path(folder);
  ASSIGN_OR_RETURN(const engine::CatalogSpec spec, SpecOf(kept.entry, "/", ""));
  RETURN_IF_ERROR(upload.spool->Complete(sha256));
  RETURN_IF_ERROR(
      CheckUpload(upload.spool->folder(), spec.dictionaries[0], *engine_));
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(CheckFree(name));
  std::error_code ignored;
  fs::remove_all(folder, ignored);  // of a server that ended just before Add
  RETURN_IF_ERROR(upload.spool->Keep(folder));
  const absl::Status added = Add(name, std::move(kept));
  if (!added.ok()) {
    fs::remove_all(folder, ignored);
    return added;
  }
  return name;
}

}  // namespace cupola::service
