#include "storage/database.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/env.h"

namespace cupola::storage {
namespace {

constexpr size_t kLogFileBytes = 1 << 20;

}  // namespace

absl::Status ToStatus(const rocksdb::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", status.ToString());
  if (status.IsNotFound()) return absl::NotFoundError(message);
  if (status.IsCorruption()) return absl::DataLossError(message);
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

absl::Status MakePrivateDirectory(const std::string& directory) {
  if (directory.empty()) {
    return absl::FailedPreconditionError("the directory's name is empty");
  }
  std::filesystem::path path;
  for (const std::filesystem::path& part : std::filesystem::path(directory)) {
    path /= part;
    if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) continue;
    const int error = errno;
    // A parent that exists may also answer EACCES, EROFS or EISDIR.
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) continue;
    return absl::PermissionDeniedError(absl::StrCat(
        "cannot make directory ", path.string(), ": ", std::strerror(error)));
  }
  std::error_code error;
  if (!std::filesystem::is_directory(directory, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, " is not a directory"));
  }
  if (::chmod(directory.c_str(), 0700) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot set the mode of ", directory,
                     " to 0700: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

rocksdb::Options QuietOptions(rocksdb::Env* env) {
  rocksdb::Options options;
  options.env = env;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.max_log_file_size = kLogFileBytes;
  options.keep_log_file_num = 2;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  return options;
}

absl::StatusOr<std::unique_ptr<DirectoryLock>> DirectoryLock::Take(
    rocksdb::Env* env, const std::string& directory) {
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::Status status =
      env->LockFile(absl::StrCat(directory, "/LOCK"), &lock);
  if (status.IsNoSpace()) {
    return ToStatus(status, absl::StrCat("cannot lock ", directory));
  }
  if (!status.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, " is in use by another process, or cannot be ",
                     "locked: ", status.ToString()));
  }
  return absl::WrapUnique(new DirectoryLock(env, lock));
}

DirectoryLock::DirectoryLock(rocksdb::Env* env, rocksdb::FileLock* lock)
    : env_(env), lock_(lock) {}

DirectoryLock::~DirectoryLock() {
  // Nothing can be done about a failure, and the kernel unlocks at the end.
  env_->UnlockFile(lock_).PermitUncheckedError();
}

}  // namespace cupola::storage
