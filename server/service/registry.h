#ifndef CUPOLA_SERVER_SERVICE_REGISTRY_H_
#define CUPOLA_SERVER_SERVICE_REGISTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cupola/v1/catalog.pb.h"
#include "server/engine/engine.h"
#include "server/service/upload_spool.h"
#include "storage/durable_store.h"

namespace cupola::service {

struct RegistryOptions {
  std::string catalog;     // the file
  std::string model_root;  // where registered paths are; empty: none may be
  // Where registered entries are kept over restarts; empty: while this lives.
  std::string state_directory;
  std::string upload_directory;              // empty: nothing may be uploaded
  int64_t upload_bytes = int64_t{10} << 30;  // all uploads together
};

// The catalog as it changes while the server runs: the file's entries, which
// Reload reads again, and those that were registered or uploaded, under one set
// of names. Every change either takes effect as a whole or changes nothing. Any
// thread may call; calls wait for the disk. Errors name the field.
class Registry {
 public:
  // `file`: what the engine was made with, which outlives this. Adds what
  // earlier servers have kept; what of it cannot be served any more is logged
  // and left out.
  static std::unique_ptr<Registry> Open(const RegistryOptions& options,
                                        engine::CatalogSpec file,
                                        engine::Engine* engine);

  // Reads the file again. Entries whose files have changed are replaced.
  // INVALID_ARGUMENT: the old catalog stays.
  absl::Status Reload();

  // See catalog.proto. These return the entry's name.
  absl::StatusOr<std::string> Register(const v1::RegisterRequest& request);
  absl::Status Unregister(const std::string& name);

  // A dictionary's files, to be given back to FinishUpload. RESOURCE_EXHAUSTED
  // with both numbers beyond the quota, of which uploads under way have theirs.
  struct Upload;
  absl::StatusOr<std::shared_ptr<Upload>> BeginUpload(
      const v1::UploadDictionaryRequest::Header& header);
  absl::StatusOr<std::string> FinishUpload(Upload& upload,
                                           absl::string_view sha256);

 private:
  // A registered entry as it is kept: with its path made absolute.
  struct Kept {
    v1::RegisterRequest entry;
    bool uploaded = false;
    int64_t bytes = 0;  // of an upload
    std::string stamp;  // of its files when it was added or last reloaded
  };
  Registry(const RegistryOptions& options, engine::CatalogSpec file,
           engine::Engine* engine);
  void Restore();
  // The file's entries and the kept ones, or an error that names one.
  static absl::StatusOr<engine::CatalogSpec> Merge(
      const engine::CatalogSpec& file, const std::map<std::string, Kept>& kept);
  absl::Status CheckFree(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Serves the catalog with the entry and then keeps it on the disk.
  absl::Status Add(const std::string& name, Kept kept)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  RegistryOptions options_;  // never changes
  engine::Engine* const engine_;
  absl::Mutex mu_;
  engine::CatalogSpec file_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Kept> kept_ ABSL_GUARDED_BY(mu_);
  int64_t uploading_ ABSL_GUARDED_BY(mu_) = 0;    // bytes under way
  absl::Status opened_;                           // of the store
  std::unique_ptr<storage::DurableStore> store_;  // null: in memory
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
