#include "storage/file_error.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace cupola::storage {

absl::Status FileError(absl::string_view doing, const std::string& path) {
  const int error = errno;
  const std::string message =
      absl::StrCat("cannot ", doing, " ", path, ": ", std::strerror(error));
  return error == ENOSPC || error == EDQUOT || error == EFBIG
             ? absl::ResourceExhaustedError(message)
             : absl::InternalError(message);
}

void SyncDirectory(const std::string& path) {
  const std::string directory =
      std::filesystem::path(path).parent_path().string();
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

}  // namespace cupola::storage
