#ifndef CUPOLA_STORAGE_DURABLE_STORE_H_
#define CUPOLA_STORAGE_DURABLE_STORE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace rocksdb {
class DB;
}  // namespace rocksdb

namespace cupola::storage {

// A small key-value store for what is not a cache: catalog state, measurements,
// remembered file digests, checkpoints. It has a RocksDB directory of its own,
// so that nothing that happens to the result cache can touch it, and its own
// promises:
//
//  - When Put or Delete returns OK, the change survives a loss of power.
//  - Nothing is evicted, expires or is moved aside. What cannot be read is an
//    error that names the directory.
//
// Keys begin with the name of their use and '/' ("file_digest/..."), so that
// Scan lists one use. Made for some thousands of small values, or of blocks of
// about 1 MiB (row_store.h).
//
// All methods may be called from any thread; Put and Delete wait for the disk.
// Errors: DATA_LOSS (damaged files), RESOURCE_EXHAUSTED (a full disk), else
// INTERNAL.
class DurableStore {
 public:
  // What the values are: it decides how they are buffered and laid out.
  enum class Values { kSmall, kBlocks };
  // Makes `directory` with mode 0700 where it is missing. Also
  // FAILED_PRECONDITION where another process holds it, and PERMISSION_DENIED.
  static absl::StatusOr<std::unique_ptr<DurableStore>> Open(
      const std::string& directory, Values values = Values::kSmall);
  ~DurableStore();
  DurableStore(const DurableStore&) = delete;
  DurableStore& operator=(const DurableStore&) = delete;

  // NOT_FOUND where the key has no value.
  absl::StatusOr<std::string> Get(absl::string_view key) const;
  absl::Status Put(absl::string_view key, absl::string_view value);
  // OK also where the key has no value.
  absl::Status Delete(absl::string_view key);
  // All of these or, where it is not OK, none: values that are put, or keys
  // that are deleted.
  struct Change {
    std::string key;
    std::optional<std::string> value;  // none: deleted
  };
  absl::Status Apply(const std::vector<Change>& changes);
  // All keys that begin with `prefix`, which is not empty. The disk has its
  // room again when this returns, but for what a failing disk keeps longer.
  absl::Status DeletePrefix(absl::string_view prefix);
  // The keys that begin with `prefix`, in byte order, with their values, all of
  // one moment.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Scan(
      absl::string_view prefix) const;

  // The same keys alone.
  absl::StatusOr<std::vector<std::string>> Keys(absl::string_view prefix) const;
  // What stands between `prefix` and the next '/' in those that have one, each
  // once; keys in between are not read.
  absl::StatusOr<std::vector<std::string>> Folders(
      absl::string_view prefix) const;

 private:
  DurableStore(std::string directory, std::unique_ptr<rocksdb::DB> database);
  const std::string directory_;
  const std::unique_ptr<rocksdb::DB> database_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_DURABLE_STORE_H_
