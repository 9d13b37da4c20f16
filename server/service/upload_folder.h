#ifndef CUPOLA_SERVER_SERVICE_UPLOAD_FOLDER_H_
#define CUPOLA_SERVER_SERVICE_UPLOAD_FOLDER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/service/upload_spool.h"

namespace cupola::service {

// The folder of uploaded dictionaries, each in one of its own: below the folder
// that the user has named, since what lies in it is deleted when nobody keeps
// it, and locked, since two servers would delete each other's. Calls wait for
// the disk. Any thread may call.
class UploadFolder {
 public:
  // Makes PARENT/cupola-uploads. `parent` empty: nothing can be uploaded.
  // `state` is where the server keeps which dictionaries it has: one that has
  // another would take all for left behind.
  UploadFolder(const std::string& parent, const std::string& state);
  ~UploadFolder();
  UploadFolder(const UploadFolder&) = delete;
  UploadFolder& operator=(const UploadFolder&) = delete;

  // Not OK: why nothing can be uploaded. FAILED_PRECONDITION (no folder was
  // named, or it is another server's), INTERNAL.
  const absl::Status& status() const { return status_; }
  // Deletes all that is none of `kept`, the paths of kept dictionaries: what
  // servers that were killed have left behind.
  void Sweep(const std::set<std::string>& kept) const;
  // As UploadSpool's.
  absl::StatusOr<std::unique_ptr<UploadSpool>> Begin(absl::string_view cfg,
                                                     int64_t bytes) const;
  // Where a dictionary of this name is kept.
  std::string PathFor(const std::string& name) const;

 private:
  absl::Status Lock(const std::string& state);

  std::string folder_;  // absolute
  absl::Status status_;
  int lock_ = -1;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_UPLOAD_FOLDER_H_
