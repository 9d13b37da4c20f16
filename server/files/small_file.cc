#include "server/files/small_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace cupola::files {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

}  // namespace

std::string FileStamp(const std::string& path) {
  struct stat state = {};
  if (path.empty() || ::stat(path.c_str(), &state) != 0) return "-;";
  return absl::StrCat(state.st_ino, ",", state.st_size, ",",
                      state.st_mtim.tv_sec, ",", state.st_mtim.tv_nsec, ";");
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", std::strerror(errno)));
  }
  std::string bytes(kMaxFileBytes + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (file.bad() || file.gcount() > static_cast<int64_t>(kMaxFileBytes)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " cannot be read; accepted: at most ", kMaxFileBytes, " bytes"));
  }
  bytes.resize(static_cast<size_t>(file.gcount()));
  return bytes;
}

}  // namespace cupola::files
