#ifndef CUPOLA_STORAGE_DATABASE_H_
#define CUPOLA_STORAGE_DATABASE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "rocksdb/options.h"
#include "rocksdb/status.h"

namespace cupola::storage {

// What the two RocksDB directories of the project, the result cache's and the
// durable store's, have in common. Internal to storage/.

// `what` names the action and the file or directory; the message keeps
// RocksDB's own words. NOT_FOUND, DATA_LOSS (corruption), RESOURCE_EXHAUSTED (a
// full disk), else INTERNAL.
absl::Status ToStatus(const rocksdb::Status& status, absl::string_view what);

// Makes `directory` and its missing parents with mode 0700, and sets an
// existing directory's own mode to 0700. Errors name the path:
// FAILED_PRECONDITION where something that is no directory has the name, else
// PERMISSION_DENIED.
absl::Status MakePrivateDirectory(const std::string& directory);

// Options with a small, quiet information log and no background statistics.
rocksdb::Options QuietOptions(rocksdb::Env* env);

// RocksDB's own lock of a directory, held without opening the database. RocksDB
// cannot open the directory, in any process, while this object lives.
class DirectoryLock {
 public:
  // FAILED_PRECONDITION where another process, or another object of this one,
  // has the directory open; the message names it.
  static absl::StatusOr<std::unique_ptr<DirectoryLock>> Take(
      rocksdb::Env* env, const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  DirectoryLock(rocksdb::Env* env, rocksdb::FileLock* lock);
  rocksdb::Env* const env_;
  rocksdb::FileLock* const lock_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_DATABASE_H_
