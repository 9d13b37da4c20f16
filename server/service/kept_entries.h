#ifndef CUPOLA_SERVER_SERVICE_KEPT_ENTRIES_H_
#define CUPOLA_SERVER_SERVICE_KEPT_ENTRIES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cupola/v1/catalog.pb.h"
#include "storage/durable_store.h"

namespace cupola::service {

// An entry that was registered or uploaded, with its path made absolute.
struct KeptEntry {
  v1::RegisterRequest entry;
  bool uploaded = false;
  int64_t bytes = 0;  // of an upload
  std::string stamp;  // of its files when it was added or last read again
};

const std::string& NameOf(const KeptEntry& kept);
const std::string& PathOf(const KeptEntry& kept);

// Such entries over restarts: one record for each name, so that a name never
// means two things. Calls wait for the disk. Errors are DurableStore's.
class KeptEntries {
 public:
  // `directory` empty: nothing is kept. One that cannot be opened fails Read
  // and all that follows.
  explicit KeptEntries(const std::string& directory);

  // By name, without bytes and stamps. What is no record of this version is left alone.
  absl::StatusOr<std::map<std::string, KeptEntry>> Read() const;
  absl::Status Put(const KeptEntry& kept);
  absl::Status Delete(const std::string& name);

 private:
  absl::Status opened_;
  std::unique_ptr<storage::DurableStore> store_;  // null: nothing is kept
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_KEPT_ENTRIES_H_
