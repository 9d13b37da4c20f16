#ifndef CUPOLA_SERVER_ENGINE_MEAN_STORE_H_
#define CUPOLA_SERVER_ENGINE_MEAN_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/model/model_config.h"
#include "storage/array.h"
#include "storage/digest.h"
#include "storage/durable_store.h"

namespace cupola::engine {

// What a stored mean is called. Several hook points may have means of one name
// ("pile"), and so may several models.
struct MeanKey {
  storage::Digest model{};
  model::Processing processing = model::Processing::kRaw;
  std::string hook;  // full name
  std::string name;
};

// Everything of a stored mean but its numbers.
struct MeanInfo {
  MeanKey key;
  std::vector<int64_t> shape;
  int64_t count = 0;         // positions that it is the mean of
  storage::Digest digest{};  // of its numbers and shape
  absl::Time written;
};

storage::Digest DigestOfMean(const storage::Array& value);

// The mean activations that users have named, for interventions to use instead
// of a vector. They are no cache: one stays, over restarts, until it is deleted
// or stored again, and a Put that returned OK survives a loss of power
// (storage::DurableStore). Any thread may call; Put and Delete wait for the
// disk.
class MeanStore {
 public:
  static constexpr int64_t kMaxMeans = 4096;
  static constexpr int64_t kMaxBytes = int64_t{1} << 28;  // of all numbers
  static constexpr size_t kMaxNameBytes = 128;

  // Empty directory: in memory, for as long as the process lives. A directory
  // that cannot be opened fails each later call with its error instead of the
  // server's start.
  static std::unique_ptr<MeanStore> Open(const std::string& directory);

  // INVALID_ARGUMENT naming `field`: empty, too long, or with control
  // characters.
  static absl::Status CheckName(const std::string& name,
                                const std::string& field);

  // Replaces what has the key. RESOURCE_EXHAUSTED with both numbers where the
  // store is full.
  absl::StatusOr<MeanInfo> Put(const MeanKey& key, const storage::Array& value,
                               int64_t count);

  struct Found {
    MeanInfo info;
    storage::Array value;  // FLOAT32
  };
  // The mean of this key; else, where the name stands for one hook point of the
  // model and processing alone, that one's. NOT_FOUND tells what there is.
  absl::StatusOr<Found> Find(const MeanKey& key) const;

  // Of one model, by processing, hook and name.
  absl::StatusOr<std::vector<MeanInfo>> List(
      const storage::Digest& model) const;

  // NOT_FOUND where there is none.
  absl::Status Delete(const MeanKey& key);

 private:
  MeanStore() = default;
  absl::Status ReadIndex();
  absl::StatusOr<std::string> Read(const std::string& key) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);

  absl::Status opened_;
  std::unique_ptr<storage::DurableStore> disk_;  // null: in memory
  mutable absl::Mutex mu_;
  // By stored key.
  std::map<std::string, MeanInfo> index_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::string> memory_ ABSL_GUARDED_BY(mu_);
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_MEAN_STORE_H_
