#ifndef CUPOLA_SERVER_SERVICE_REGISTRY_H_
#define CUPOLA_SERVER_SERVICE_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cupola/v1/catalog.pb.h"
#include "server/engine/engine.h"
#include "server/engine/executor.h"
#include "server/service/kept_entries.h"
#include "server/service/upload_folder.h"
#include "server/service/upload_spool.h"

namespace cupola::service {

struct RegistryOptions {
  std::string catalog;     // the file
  std::string model_root;  // where registered paths are; empty: none may be
  // Where registered entries are kept over restarts; empty: while this lives.
  std::string state_directory;
  std::string upload_directory;              // empty: nothing may be uploaded
  int64_t upload_bytes = int64_t{10} << 30;  // all uploads together
  absl::Duration upload_idle = absl::Minutes(1);  // see idle_limit()
};

// The catalog as it changes while the server runs: the file's entries, which
// Reload reads again, and those that were registered or uploaded, under one set
// of names. Every change either takes effect as a whole or changes nothing. An
// entry that cannot be served any more is one that fails, with the reason, and
// can still be unregistered; a name that the file has too means the file's
// entry. Any thread may call; calls wait for the disk: see Run. Errors name the
// field.
class Registry {
 public:
  // `file`: what the engine was made with, which outlives this. Adds what
  // earlier servers have kept, and deletes what they have left behind.
  Registry(const RegistryOptions& options, engine::CatalogSpec file,
           engine::Engine* engine);

  // Reads the file again. Entries whose files have changed are replaced.
  // INVALID_ARGUMENT, NOT_FOUND: it is no catalog, and the old one stays.
  absl::Status Reload();

  // See catalog.proto. These return the entry's name.
  absl::StatusOr<std::string> Register(const v1::RegisterRequest& request);
  absl::Status Unregister(const std::string& name);

  // A dictionary's files, to be given back to FinishUpload. RESOURCE_EXHAUSTED
  // with both numbers beyond the quota, of which uploads under way have theirs.
  struct Upload;
  absl::StatusOr<std::shared_ptr<Upload>> BeginUpload(
      const v1::UploadDictionaryRequest::Header& header);
  // `context` says when nobody waits any more.
  absl::StatusOr<std::string> FinishUpload(
      Upload& upload, absl::string_view sha256,
      const engine::RequestContext& context);
  // How long an upload may send nothing: it has its share of the quota.
  absl::Duration idle_limit() const { return options_.upload_idle; }

  // Runs a task on threads for what waits for the disk, so that who asks only
  // what the server knows does not wait with it.
  void Run(std::function<void()> task) { executor_.Run(std::move(task)); }

 private:
  using Kept = std::map<std::string, KeptEntry>;
  void Restore();
  // Serves the file's entries and the kept ones; `whole` as SetCatalog's.
  absl::Status Serve(const engine::CatalogSpec& file, const Kept& kept,
                     const std::string& whole = "");
  absl::Status CheckFree(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Serves the catalog with the entry and then keeps it on the disk.
  absl::Status Add(KeptEntry kept) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RegistryOptions options_;
  engine::Engine* const engine_;
  const UploadFolder uploads_;
  absl::Mutex mu_;
  KeptEntries disk_ ABSL_GUARDED_BY(mu_);
  absl::Status restored_ ABSL_GUARDED_BY(mu_);  // not OK: nothing can be added
  engine::CatalogSpec file_ ABSL_GUARDED_BY(mu_);
  Kept kept_ ABSL_GUARDED_BY(mu_);
  int64_t uploading_ ABSL_GUARDED_BY(mu_) = 0;  // bytes under way
  engine::Executor executor_;  // last: its tasks use everything above
};

// Its end frees the quota, and the files unless they were kept.
struct Registry::Upload {
  ~Upload();
  Registry* registry;
  v1::DictionaryEntry entry;
  std::unique_ptr<UploadSpool> spool;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_REGISTRY_H_
