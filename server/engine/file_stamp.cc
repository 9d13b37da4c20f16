#include "server/engine/file_stamp.h"

#include <sys/stat.h>

#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace cupola::engine {

namespace fs = std::filesystem;

std::string FileStamp(const std::string& folder) {
  std::set<std::string> files;  // in the order of their names
  std::error_code failed;
  for (fs::directory_iterator it(folder, failed), end; !failed && it != end;
       it.increment(failed)) {
    struct stat status;
    const fs::path kind = it->path().extension();
    if (kind != ".safetensors" && kind != ".json") continue;
    if (stat(it->path().c_str(), &status) != 0) continue;
    if (!S_ISREG(status.st_mode)) continue;
    files.insert(absl::StrCat(it->path().filename().string(), ":",
                              status.st_size, ":", status.st_mtim.tv_sec, ".",
                              status.st_mtim.tv_nsec, ":", status.st_ino));
  }
  return absl::StrJoin(files, "/");
}

absl::Status CheckStamp(const std::string& folder, const std::string& stamp) {
  if (FileStamp(folder) == stamp) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "its files have changed since they were opened; reload the catalog");
}

void StampFiles(CatalogSpec* catalog) {
  for (auto& model : catalog->models) model.stamp = FileStamp(model.path);
  for (auto& dictionary : catalog->dictionaries) {
    dictionary.stamp = FileStamp(dictionary.path);
  }
}

}  // namespace cupola::engine
