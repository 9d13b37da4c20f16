#ifndef CUPOLA_SERVER_SERVICE_MODEL_ROOT_H_
#define CUPOLA_SERVER_SERVICE_MODEL_ROOT_H_

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace cupola::service {

// The folder that all models and dictionaries lie below, when there is one.
class ModelRoot {
 public:
  // `folder` empty: paths may lead anywhere. INVALID_ARGUMENT: it is no folder.
  static absl::StatusOr<ModelRoot> Create(const std::string& folder);

  // Where a path leads that starts at `base` when it is relative: absolute,
  // with symbolic links followed; what does not exist keeps its name.
  // INVALID_ARGUMENT: that is outside the root (`..` and links are followed
  // first), or, for a folder, one of its own files is a link that leads
  // outside. Links to targets inside are how Hugging Face keeps snapshots. What
  // changes in the folder afterwards is not seen.
  absl::StatusOr<std::string> Resolve(const std::filesystem::path& base,
                                      const std::string& path) const;

 private:
  absl::Status CheckInside(const std::filesystem::path& whole) const;

  std::filesystem::path root_;  // absolute; empty when there is none
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_MODEL_ROOT_H_
