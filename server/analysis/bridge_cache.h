#ifndef CUPOLA_SERVER_ANALYSIS_BRIDGE_CACHE_H_
#define CUPOLA_SERVER_ANALYSIS_BRIDGE_CACHE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/analysis/mlp_bridge.h"
#include "storage/digest.h"

namespace cupola::analysis {

// Bridges made for earlier requests, the least recently used dropped first so
// that together they hold at most `budget` bytes, all of them counted where the
// device's other memory is. One whose products alone exceed the budget, or for
// which the device has no room now, is made without them; one that is too large
// even so serves its request and is not kept. Any thread may call.
class BridgeCache {
 public:
  using Bridge = std::shared_ptr<const MlpBridge>;
  // Takes so many bytes of memory that is shared with others: what is freed
  // with the bridge that lies there. Null: there is no room now.
  using Take = std::function<std::shared_ptr<void>(int64_t bytes)>;

  // Without `take` nobody else is asked.
  explicit BridgeCache(int64_t budget, Take take = nullptr)
      : budget_(budget), take_(std::move(take)) {}

  // The bridge of `key`, which names all that it depends on, or what `make`
  // returns. `bytes`: what it would hold with its products. Two threads that
  // ask for one missing key at once both make it.
  absl::StatusOr<Bridge> Get(
      const storage::Digest& key, int64_t bytes,
      const std::function<absl::StatusOr<Bridge>(bool keep_products)>& make);

  int64_t Bytes() const;

  // What is kept, for who needs the memory.
  struct Held {
    const void* id;
    int64_t bytes = 0;
    absl::Time made_at, last_use;
    bool in_use = false;
  };
  std::vector<Held> All() const;
  // Forgets the bridge of that id: it goes with the returned pointers, or with
  // its last user. Null where there is none.
  struct Dropped {
    Bridge bridge;
    std::shared_ptr<void> room;  // of Take
  };
  Dropped Drop(const void* id);

 private:
  struct Kept {
    storage::Digest key;
    Bridge bridge;
    std::shared_ptr<void> room;
    int64_t bytes;
    absl::Time made_at, last_use;
  };
  Bridge Find(const storage::Digest& key);
  // Returns what is to be used from now on: who holds it holds its room.
  Bridge Insert(const storage::Digest& key, Bridge bridge,
                std::shared_ptr<void> room);
  std::shared_ptr<void> TakeRoom(int64_t bytes) const;

  const int64_t budget_;
  const Take take_;
  mutable absl::Mutex mu_;
  std::list<Kept> kept_ ABSL_GUARDED_BY(mu_);  // the last used first
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_BRIDGE_CACHE_H_
