#ifndef CUPOLA_SERVER_FILES_WATCHED_FILES_H_
#define CUPOLA_SERVER_FILES_WATCHED_FILES_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/files/small_file.h"

namespace cupola::files {

// What one or several small files say, read again when one of them changes.
// Contents that cannot be used, as when only one of two files has been
// replaced, are passed over, and the last good ones stay. Thread-safe.
template <typename T>
class WatchedFiles {
 public:
  // Reads all the files.
  using Read = std::function<absl::StatusOr<T>()>;
  // Told of each reading after the first. Does not call back.
  using Report = std::function<void(const absl::Status&)>;

  // The errors of `read`. An empty path is a file that is not there.
  static absl::StatusOr<std::shared_ptr<WatchedFiles>> Load(
      std::vector<std::string> paths, Read read, Report report) {
    std::shared_ptr<WatchedFiles> files(
        new WatchedFiles(std::move(paths), std::move(read), std::move(report)));
    absl::MutexLock lock(&files->mu_);
    files->stamp_ = files->Stamp();  // before: a change while reading is seen
    absl::StatusOr<T> contents = files->read_();
    if (!contents.ok()) return contents.status();
    files->contents_ = std::make_shared<const T>(*std::move(contents));
    return files;
  }

  // The newest good contents. Asks the file system at most once a second; the
  // same object while nothing has changed.
  std::shared_ptr<const T> Current() {
    absl::MutexLock lock(&mu_);
    const absl::Time now = absl::Now();
    if (now < next_look_) return contents_;
    next_look_ = now + absl::Seconds(1);
    std::string stamp = Stamp();
    if (stamp == stamp_) return contents_;
    stamp_ = std::move(stamp);
    absl::StatusOr<T> contents = read_();
    if (contents.ok()) {
      contents_ = std::make_shared<const T>(*std::move(contents));
    }
    report_(contents.status());
    return contents_;
  }

 private:
  WatchedFiles(std::vector<std::string> paths, Read read, Report report)
      : paths_(std::move(paths)),
        read_(std::move(read)),
        report_(std::move(report)) {}

  std::string Stamp() const {
    std::string stamp;
    for (const std::string& path : paths_) {
      absl::StrAppend(&stamp, FileStamp(path));
    }
    return stamp;
  }

  const std::vector<std::string> paths_;
  const Read read_;
  const Report report_;
  absl::Mutex mu_;
  absl::Time next_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::string stamp_ ABSL_GUARDED_BY(mu_);  // of the files when last read
  std::shared_ptr<const T> contents_ ABSL_GUARDED_BY(mu_);
};

}  // namespace cupola::files

#endif  // CUPOLA_SERVER_FILES_WATCHED_FILES_H_
