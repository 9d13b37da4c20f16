#include "server/service/registry.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "cupola/v1/catalog_config.pb.h"
#include "google/protobuf/text_format.h"
#include "server/engine/file_stamp.h"
#include "server/model/json.h"
#include "server/model/read_monitor.h"
#include "server/model/safetensors.h"
#include "server/model/status_macros.h"
#include "server/service/catalog_file.h"
#include "server/service/log.h"

namespace cupola::service {
namespace {

namespace fs = std::filesystem;
using absl::InvalidArgumentError;
using absl::StrCat;

constexpr size_t kMaxCfgBytes = 1 << 20;
constexpr int kThreads = 4;

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

// What is served of a kept entry. The root may be another one than when it was
// registered, and links others.
absl::StatusOr<engine::CatalogSpec> SpecOf(const KeptEntry& kept,
                                           const std::string& root) {
  ASSIGN_OR_RETURN(engine::CatalogSpec spec, SpecOf(kept.entry, "/", ""));
  std::string failure;
  if (!kept.uploaded) {
    const auto inside = root.empty()
                            ? absl::FailedPreconditionError(
                                  "the server was started without --model_root")
                            : SpecOf(kept.entry, "/", root).status();
    if (!inside.ok()) failure = StrCat("was registered: ", inside.message());
  }
  for (auto& model : spec.models) {
    model.stamp = kept.stamp;
    model.failure = failure;
  }
  for (auto& dictionary : spec.dictionaries) {
    dictionary.stamp = kept.stamp;
    dictionary.failure = failure;
  }
  return spec;
}

bool HasName(const engine::CatalogSpec& catalog, const std::string& name) {
  const auto has = [&name](const auto& specs) {
    return std::any_of(specs.begin(), specs.end(),
                       [&](const auto& spec) { return spec.name == name; });
  };
  return has(catalog.models) || has(catalog.dictionaries);
}

template <typename T>
void MoveTo(std::vector<T>* target, std::vector<T> source) {
  std::move(source.begin(), source.end(), std::back_inserter(*target));
}

// What is certain to fail at every load is refused at once.
absl::Status CheckUpload(const std::string& folder, engine::DictionarySpec spec,
                         const engine::Engine& engine) {
  const auto opened = model::SafetensorsSet::OpenFolder(folder, "sae_weights");
  if (!opened.ok()) {
    return InvalidArgumentError("piece: together they are no safetensors file");
  }
  spec.path = folder;
  const absl::Status checked = engine.CheckFiles(spec);
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
    : options_(options),
      engine_(engine),
      uploads_(options.upload_directory, options.state_directory),
      disk_(options.state_directory),
      file_(std::move(file)),
      executor_(kThreads) {
  Restore();
}

void Registry::Restore() {
  if (!options_.upload_directory.empty() && !uploads_.status().ok()) {
    LogError("no uploads",
             {{"reason", std::string(uploads_.status().message())}});
  }
  absl::MutexLock lock(&mu_);
  absl::StatusOr<Kept> read = disk_.Read();
  if (!read.ok()) {
    restored_ = read.status();
    LogError("registered entries cannot be read",
             {{"reason", std::string(restored_.message())}});
    return;
  }
  kept_ = *std::move(read);
  std::set<std::string> uploaded;
  for (auto& [name, kept] : kept_) {
    if (kept.uploaded && uploads_.status().ok()) {
      // Where it is now: the folder may have been moved.
      kept.entry.mutable_dictionary()->set_path(uploads_.PathFor(name));
      uploaded.insert(PathOf(kept));
      std::error_code failed;
      const auto bytes =
          fs::file_size(fs::path(PathOf(kept)) / UploadSpool::kWeights, failed);
      if (!failed) kept.bytes = static_cast<int64_t>(bytes);
    }
    kept.stamp = engine::FileStamp(PathOf(kept));
  }
  uploads_.Sweep(uploaded);
  if (kept_.empty()) return;
  const absl::Status served = Serve(file_, kept_);
  if (!served.ok()) {
    LogError("registered entries are not served",
             {{"reason", std::string(served.message())}});
  }
}

absl::Status Registry::Serve(const engine::CatalogSpec& file, const Kept& kept,
                             const std::string& whole) {
  engine::CatalogSpec merged = file;
  for (const auto& [name, one] : kept) {
    auto spec = SpecOf(one, options_.model_root);
    if (spec.ok() && HasName(file, name)) {
      spec = absl::AlreadyExistsError("the catalog file has that name");
    }
    if (!spec.ok()) {
      LogWarning(
          "registered entry left out",
          {{"name", name}, {"reason", std::string(spec.status().message())}});
      continue;
    }
    MoveTo(&merged.models, std::move(spec->models));
    MoveTo(&merged.dictionaries, std::move(spec->dictionaries));
  }
  return engine_->SetCatalog(merged, whole);
}

absl::Status Registry::Reload() {
  absl::MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(engine::CatalogSpec file,
                   ReadCatalogFile(options_.catalog, options_.model_root));
  engine::StampFiles(&file);
  Kept kept = kept_;
  for (auto& [name, one] : kept) one.stamp = engine::FileStamp(PathOf(one));
  RETURN_IF_ERROR(Serve(file, kept));
  file_ = std::move(file);
  kept_ = std::move(kept);
  return absl::OkStatus();
}

absl::Status Registry::CheckFree(const std::string& name) const {
  if (kept_.count(name) == 0 && !HasName(file_, name)) return absl::OkStatus();
  return absl::AlreadyExistsError(
      StrCat("name is \"", name,
             "\", which the catalog has; unregister that or take another one"));
}

absl::Status Registry::Add(KeptEntry kept) {
  RETURN_IF_ERROR(restored_);
  kept.stamp = engine::FileStamp(PathOf(kept));
  const std::string name = NameOf(kept);
  Kept with = kept_;
  with[name] = kept;
  RETURN_IF_ERROR(Serve(file_, with, name));
  if (const absl::Status stored = disk_.Put(kept); !stored.ok()) {
    (void)Serve(file_, kept_);  // as before: it was served
    return stored;
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
  ASSIGN_OR_RETURN(const engine::CatalogSpec spec,
                   SpecOf(request, options_.model_root, options_.model_root));
  const std::string& path =
      spec.models.empty() ? spec.dictionaries[0].path : spec.models[0].path;
  std::error_code failed;
  if (!fs::is_directory(path, failed)) {
    const std::string& given = request.has_model()
                                   ? request.model().path()
                                   : request.dictionary().path();
    return InvalidArgumentError(StrCat("path is \"", given,
                                       "\"; accepted: a folder below the "
                                       "server's model root"));
  }
  KeptEntry kept;
  kept.entry = request;
  if (request.has_model()) {
    kept.entry.mutable_model()->set_path(path);
  } else {
    kept.entry.mutable_dictionary()->set_path(path);
  }
  const std::string name = NameOf(kept);
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(CheckFree(name));
  RETURN_IF_ERROR(Add(std::move(kept)));
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
  if (!dependants.empty() && !HasName(file_, name)) {
    return absl::FailedPreconditionError(StrCat(
        "\"", name, "\" has dictionaries: ", absl::StrJoin(dependants, ", "),
        "; unregister them first"));
  }
  const KeptEntry leaving = found->second;
  Kept without = kept_;
  without.erase(name);
  RETURN_IF_ERROR(Serve(file_, without));
  if (const absl::Status deleted = disk_.Delete(name); !deleted.ok()) {
    (void)Serve(file_, kept_);  // as before: it was served
    return deleted;
  }
  kept_ = std::move(without);
  if (leaving.uploaded) {
    std::error_code ignored;  // an open file stays readable to its requests
    fs::remove_all(PathOf(leaving), ignored);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Registry::Upload>> Registry::BeginUpload(
    const v1::UploadDictionaryRequest::Header& header) {
  RETURN_IF_ERROR(uploads_.status());
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
  RETURN_IF_ERROR(model::ParseJson(header.cfg(), "header.cfg").status());
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
    RETURN_IF_ERROR(restored_);
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
  auto spool = uploads_.Begin(header.cfg(), header.bytes());
  if (!spool.ok()) {
    absl::MutexLock lock(&mu_);
    uploading_ -= header.bytes();
    return spool.status();
  }
  upload->spool = *std::move(spool);
  return upload;
}

absl::StatusOr<std::string> Registry::FinishUpload(
    Upload& upload, absl::string_view sha256,
    const engine::RequestContext& context) {
  KeptEntry kept;
  kept.uploaded = true;
  kept.bytes = upload.spool->bytes();
  *kept.entry.mutable_dictionary() = upload.entry;
  const std::string name = NameOf(kept);
  const std::string folder = uploads_.PathFor(name);
  kept.entry.mutable_dictionary()->set_path(folder);
  ASSIGN_OR_RETURN(const engine::CatalogSpec spec, SpecOf(kept, ""));
  RETURN_IF_ERROR(upload.spool->Complete(sha256));
  {
    const model::ReadMonitor::Scope watched(nullptr, context.cancelled.get());
    RETURN_IF_ERROR(
        CheckUpload(upload.spool->folder(), spec.dictionaries[0], *engine_));
  }
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(CheckFree(name));
  std::error_code ignored;
  fs::remove_all(folder, ignored);  // of a server that ended just before Add
  RETURN_IF_ERROR(upload.spool->Keep(folder));
  const absl::Status added = Add(std::move(kept));
  if (!added.ok()) {
    fs::remove_all(folder, ignored);
    return added;
  }
  return name;
}

}  // namespace cupola::service
