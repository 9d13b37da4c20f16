#include "server/service/upload_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace cupola::service {
namespace {

namespace fs = std::filesystem;

constexpr char kFolder[] = "cupola-uploads";
constexpr char kLock[] = "LOCK";
constexpr char kKept[] = "dictionary-";

}  // namespace

UploadFolder::UploadFolder(const std::string& parent,
                           const std::string& state) {
  if (parent.empty()) {
    status_ = absl::FailedPreconditionError(
        "this server takes no uploads: it was started without --upload_dir and "
        "without --cache_dir");
    return;
  }
  std::error_code failed;
  folder_ = (fs::absolute(parent, failed) / kFolder).lexically_normal();
  fs::create_directories(folder_, failed);
  status_ = failed ? absl::InternalError(absl::StrCat("making ", folder_, ": ",
                                                      failed.message()))
                   : Lock(state);
}

// The lock's file tells whose folder it is: seen from there, so that both may
// be moved together.
absl::Status UploadFolder::Lock(const std::string& state) {
  const std::string path = absl::StrCat(folder_, "/", kLock);
  const auto failure = [&path] {
    return absl::InternalError(
        absl::StrCat("opening ", path, ": ", std::strerror(errno)));
  };
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) return failure();
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this server takes no uploads: another one has ", folder_));
  }
  std::error_code failed;
  const std::string mine = fs::absolute(state, failed)
                               .lexically_normal()
                               .lexically_relative(folder_);
  std::string owner(4096, '\0');
  const ssize_t size = pread(lock_, owner.data(), owner.size(), 0);
  if (size < 0) return failure();
  owner.resize(static_cast<size_t>(size));
  if (owner == mine) return absl::OkStatus();
  if (!owner.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this server takes no uploads: ", folder_,
        " is another one's, whose registered entries are in ", owner));
  }
  const ssize_t written = pwrite(lock_, mine.data(), mine.size(), 0);
  if (written != static_cast<ssize_t>(mine.size())) return failure();
  return absl::OkStatus();
}

UploadFolder::~UploadFolder() {
  if (lock_ >= 0) close(lock_);
}

void UploadFolder::Sweep(const std::set<std::string>& kept) const {
  if (!status_.ok()) return;
  std::error_code failed;
  for (fs::directory_iterator it(folder_, failed), end; !failed && it != end;
       it.increment(failed)) {
    const std::string name = it->path().filename().string();
    const bool ours = absl::StartsWith(name, kKept) ||
                      absl::StartsWith(name, UploadSpool::kPrefix);
    std::error_code ignored;
    if (ours && kept.count(it->path().string()) == 0) {
      fs::remove_all(it->path(), ignored);
    }
  }
}

absl::StatusOr<std::unique_ptr<UploadSpool>> UploadFolder::Begin(
    absl::string_view cfg, int64_t bytes) const {
  if (!status_.ok()) return status_;
  return UploadSpool::Create(folder_, cfg, bytes);
}

std::string UploadFolder::PathFor(const std::string& name) const {
  return absl::StrCat(folder_, "/", kKept,
                      absl::StrReplaceAll(name, {{"/", "%"}}));
}

}  // namespace cupola::service
