#include "server/analysis/bridge_cache.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

absl::StatusOr<BridgeCache::Bridge> BridgeCache::Get(
    const storage::Digest& key, int64_t bytes,
    const std::function<absl::StatusOr<Bridge>(bool keep_products)>& make) {
  if (Bridge found = Find(key)) return found;
  std::shared_ptr<void> room = TakeRoom(bytes);
  ASSIGN_OR_RETURN(Bridge made, make(/*keep_products=*/room != nullptr));
  if (room == nullptr) room = TakeRoom(made->Bytes());
  if (room == nullptr) return made;
  return Insert(key, std::move(made), std::move(room));
}

int64_t BridgeCache::Bytes() const {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

std::vector<BridgeCache::Held> BridgeCache::All() const {
  absl::MutexLock lock(&mu_);
  std::vector<Held> all;
  for (const Kept& kept : kept_) {
    all.push_back({.id = kept.bridge.get(),
                   .bytes = kept.bytes,
                   .made_at = kept.made_at,
                   .last_use = kept.last_use,
                   .in_use = kept.bridge.use_count() > 1});
  }
  return all;
}

BridgeCache::Dropped BridgeCache::Drop(const void* id) {
  absl::MutexLock lock(&mu_);
  const auto kept =
      std::find_if(kept_.begin(), kept_.end(),
                   [id](const Kept& kept) { return kept.bridge.get() == id; });
  if (kept == kept_.end()) return {};
  Dropped dropped = {std::move(kept->bridge), std::move(kept->room)};
  bytes_ -= kept->bytes;
  kept_.erase(kept);
  return dropped;
}

std::shared_ptr<void> BridgeCache::TakeRoom(int64_t bytes) const {
  if (bytes > budget_) return nullptr;
  // Nobody to ask: any pointer that is one.
  return take_ == nullptr ? std::make_shared<int64_t>(bytes) : take_(bytes);
}

BridgeCache::Bridge BridgeCache::Find(const storage::Digest& key) {
  absl::MutexLock lock(&mu_);
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (it->key != key) continue;
    kept_.splice(kept_.begin(), kept_, it);
    it->last_use = absl::Now();
    return it->bridge;
  }
  return nullptr;
}

BridgeCache::Bridge BridgeCache::Insert(const storage::Digest& key,
                                        Bridge bridge,
                                        std::shared_ptr<void> room) {
  const int64_t bytes = bridge->Bytes();
  const MlpBridge* const raw = bridge.get();
  // The room ends after the bridge does.
  bridge = Bridge(raw, [bridge, room](const MlpBridge*) mutable {
    bridge.reset();
    room.reset();
  });
  std::vector<Kept> dropped;  // freed without the lock
  absl::MutexLock lock(&mu_);
  for (const Kept& kept : kept_) {
    if (kept.key == key) return bridge;
  }
  if (bytes > budget_) return bridge;
  while (bytes_ + bytes > budget_) {
    bytes_ -= kept_.back().bytes;
    dropped.push_back(std::move(kept_.back()));
    kept_.pop_back();
  }
  const absl::Time now = absl::Now();
  kept_.push_front({key, bridge, std::move(room), bytes, now, now});
  bytes_ += bytes;
  return bridge;
}

}  // namespace cupola::analysis
