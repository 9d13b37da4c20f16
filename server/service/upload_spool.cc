#include "server/service/upload_spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::service {
namespace {

namespace fs = std::filesystem;

absl::Status Failure(absl::string_view doing, const std::string& path) {
  const int error = errno;
  const std::string text =
      absl::StrCat(doing, " ", path, ": ", std::strerror(error));
  return error == ENOSPC || error == EDQUOT ? absl::ResourceExhaustedError(text)
                                            : absl::InternalError(text);
}

// So that the folder's names survive a loss of power.
absl::Status SyncFolder(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return Failure("opening", path);
  const bool synced = fsync(descriptor) == 0;
  const absl::Status status =
      synced ? absl::OkStatus() : Failure("syncing", path);
  close(descriptor);
  return status;
}

absl::Status CloseSynced(std::FILE* file, const std::string& path) {
  const bool synced = std::fflush(file) == 0 && fsync(fileno(file)) == 0;
  return synced ? absl::OkStatus() : Failure("writing", path);
}

}  // namespace

UploadSpool::UploadSpool(std::string folder, int64_t bytes)
    : folder_(std::move(folder)), bytes_(bytes), hash_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(hash_.get(), EVP_sha256(), nullptr);
}

absl::StatusOr<std::unique_ptr<UploadSpool>> UploadSpool::Create(
    const std::string& directory, absl::string_view cfg, int64_t bytes) {
  std::string folder = absl::StrCat(directory, "/", kPrefix, "XXXXXX");
  if (mkdtemp(folder.data()) == nullptr) return Failure("making", folder);
  auto spool = absl::WrapUnique(new UploadSpool(folder, bytes));
  const std::string cfg_path = absl::StrCat(folder, "/", kCfg);
  spool->file_.reset(std::fopen(cfg_path.c_str(), "wb"));
  if (spool->file_ == nullptr) return Failure("making", cfg_path);
  if (std::fwrite(cfg.data(), 1, cfg.size(), spool->file_.get()) !=
      cfg.size()) {
    return Failure("writing", cfg_path);
  }
  RETURN_IF_ERROR(CloseSynced(spool->file_.get(), cfg_path));
  const std::string path = absl::StrCat(folder, "/", kWeights);
  spool->file_.reset(std::fopen(path.c_str(), "wb"));
  if (spool->file_ == nullptr) return Failure("making", path);
  return spool;
}

UploadSpool::~UploadSpool() {
  file_.reset();
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

absl::Status UploadSpool::Append(absl::string_view piece) {
  const int64_t size = static_cast<int64_t>(piece.size());
  if (size > bytes_ - written_) {
    return absl::InvalidArgumentError(
        absl::StrCat("piece: with it there are ", written_ + size,
                     " bytes; accepted: the header's ", bytes_));
  }
  if (std::fwrite(piece.data(), 1, piece.size(), file_.get()) != piece.size()) {
    return Failure("writing to", folder_);
  }
  EVP_DigestUpdate(hash_.get(), piece.data(), piece.size());
  written_ += size;
  return absl::OkStatus();
}

absl::Status UploadSpool::Complete(absl::string_view sha256) {
  if (written_ != bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("sha256: it came after ", written_,
                     " bytes; accepted: after the header's ", bytes_));
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(hash_.get(), digest, &size);
  if (sha256 != absl::string_view(reinterpret_cast<char*>(digest), size)) {
    return absl::InvalidArgumentError(
        "sha256: it is not that of the bytes that came; send them again");
  }
  RETURN_IF_ERROR(CloseSynced(file_.get(), folder_));
  file_.reset();
  return SyncFolder(folder_);
}

absl::Status UploadSpool::Keep(const std::string& folder) {
  if (std::rename(folder_.c_str(), folder.c_str()) != 0) {
    return Failure("naming", folder);
  }
  folder_ = folder;
  RETURN_IF_ERROR(SyncFolder(fs::path(folder).parent_path()));
  folder_.clear();
  return absl::OkStatus();
}

}  // namespace cupola::service
