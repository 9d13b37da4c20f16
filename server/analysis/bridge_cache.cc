#include "server/analysis/bridge_cache.h"

#include "server/model/status_macros.h"

namespace cupola::analysis {

absl::StatusOr<BridgeCache::Bridge> BridgeCache::Get(
    const storage::Digest& key, int64_t bytes,
    const std::function<absl::StatusOr<Bridge>(bool keep_products)>& make) {
  if (Bridge found = Find(key)) return found;
  ASSIGN_OR_RETURN(Bridge made, make(/*keep_products=*/bytes <= budget_));
  Insert(key, made);
  return made;
}

int64_t BridgeCache::Bytes() const {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

BridgeCache::Bridge BridgeCache::Find(const storage::Digest& key) {
  absl::MutexLock lock(&mu_);
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (it->first != key) continue;
    kept_.splice(kept_.begin(), kept_, it);
    return it->second;
  }
  return nullptr;
}

void BridgeCache::Insert(const storage::Digest& key, const Bridge& bridge) {
  const int64_t bytes = bridge->Bytes();
  if (bytes > budget_) return;
  absl::MutexLock lock(&mu_);
  for (const auto& [other, kept] : kept_) {
    if (other == key) return;
  }
  while (bytes_ + bytes > budget_) {
    bytes_ -= kept_.back().second->Bytes();
    kept_.pop_back();
  }
  kept_.emplace_front(key, bridge);
  bytes_ += bytes;
}

}  // namespace cupola::analysis
