#include "server/service/model_root.h"

#include <algorithm>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace cupola::service {
namespace {

namespace fs = std::filesystem;

absl::Status Refuse(const fs::path& path, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", why));
}

}  // namespace

absl::StatusOr<ModelRoot> ModelRoot::Create(const std::string& folder) {
  ModelRoot root;
  if (folder.empty()) return root;
  std::error_code error;
  root.root_ = fs::canonical(folder, error);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("model root ", folder, ": ", error.message()));
  }
  return root;
}

absl::Status ModelRoot::CheckInside(const fs::path& whole) const {
  if (root_.empty()) return absl::OkStatus();
  const auto [end, unused] =
      std::mismatch(root_.begin(), root_.end(), whole.begin(), whole.end());
  if (end == root_.end()) return absl::OkStatus();
  return Refuse(
      whole, absl::StrCat("accepted: inside the model root ", root_.string()));
}

absl::StatusOr<std::string> ModelRoot::Resolve(const fs::path& base,
                                               const std::string& path) const {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(base / path, error);
  if (error) return Refuse(path, error.message());
  if (absl::Status inside = CheckInside(whole); !inside.ok()) return inside;
  if (root_.empty() || !fs::is_directory(whole, error)) return whole.string();
  for (fs::directory_iterator file(whole, error), end; !error && file != end;
       file.increment(error)) {
    if (!file->is_symlink(error)) continue;
    const fs::path target = fs::weakly_canonical(file->path(), error);
    if (error) break;
    if (const absl::Status inside = CheckInside(target); !inside.ok()) {
      return Refuse(file->path(), absl::StrCat("leads to ", inside.message()));
    }
  }
  if (error) return Refuse(whole, error.message());
  return whole.string();
}

}  // namespace cupola::service
