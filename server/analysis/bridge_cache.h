#ifndef CUPOLA_SERVER_ANALYSIS_BRIDGE_CACHE_H_
#define CUPOLA_SERVER_ANALYSIS_BRIDGE_CACHE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/analysis/mlp_bridge.h"
#include "storage/digest.h"

namespace cupola::analysis {

// Bridges made for earlier requests, the least recently used dropped first so
// that together they hold at most `budget` bytes. One whose products alone
// exceed the budget is made without them; one that is too large even so serves
// its request and is not kept. Any thread may call.
class BridgeCache {
 public:
  using Bridge = std::shared_ptr<const MlpBridge>;

  explicit BridgeCache(int64_t budget) : budget_(budget) {}

  // The bridge of `key`, which names all that it depends on, or what `make`
  // returns. `bytes`: what it would hold with its products. Two threads that
  // ask for one missing key at once both make it.
  absl::StatusOr<Bridge> Get(
      const storage::Digest& key, int64_t bytes,
      const std::function<absl::StatusOr<Bridge>(bool keep_products)>& make);

  int64_t Bytes() const;

 private:
  Bridge Find(const storage::Digest& key);
  void Insert(const storage::Digest& key, const Bridge& bridge);

  const int64_t budget_;
  mutable absl::Mutex mu_;
  std::list<std::pair<storage::Digest, Bridge>> kept_ ABSL_GUARDED_BY(mu_);
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_BRIDGE_CACHE_H_
