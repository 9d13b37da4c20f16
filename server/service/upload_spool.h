#ifndef CUPOLA_SERVER_SERVICE_UPLOAD_SPOOL_H_
#define CUPOLA_SERVER_SERVICE_UPLOAD_SPOOL_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "openssl/evp.h"

namespace cupola::service {

// A dictionary's files on their way to the disk: cfg.json and
// sae_weights.safetensors in a folder that is deleted with this, unless Keep
// has given it its name. Not thread-safe; its calls wait for the disk. Errors:
// INVALID_ARGUMENT (the client's), RESOURCE_EXHAUSTED (a full disk), INTERNAL.
class UploadSpool {
 public:
  // Folders of uploads that a crash has left behind begin so.
  static constexpr char kPrefix[] = "part-";
  // The files.
  static constexpr char kCfg[] = "cfg.json";
  static constexpr char kWeights[] = "sae_weights.safetensors";

  // A new folder in `directory`. `bytes`: of the safetensors file.
  static absl::StatusOr<std::unique_ptr<UploadSpool>> Create(
      const std::string& directory, absl::string_view cfg, int64_t bytes);
  ~UploadSpool();
  UploadSpool(const UploadSpool&) = delete;
  UploadSpool& operator=(const UploadSpool&) = delete;

  // INVALID_ARGUMENT beyond the bytes announced.
  absl::Status Append(absl::string_view piece);
  // INVALID_ARGUMENT where bytes are missing or have another SHA-256. Then the
  // files are on the disk.
  absl::Status Complete(absl::string_view sha256);
  // After Complete: the files stay, as `folder`, which must not exist.
  absl::Status Keep(const std::string& folder);

  const std::string& folder() const { return folder_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct FreeHash {
    void operator()(EVP_MD_CTX* hash) const { EVP_MD_CTX_free(hash); }
  };
  UploadSpool(std::string folder, int64_t bytes);

  std::string folder_;  // empty: kept
  const int64_t bytes_;
  int64_t written_ = 0;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::unique_ptr<EVP_MD_CTX, FreeHash> hash_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_UPLOAD_SPOOL_H_
