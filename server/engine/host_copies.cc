#include "server/engine/host_copies.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::engine {

using dictionary::Dictionary;
using dictionary::HostWeights;

absl::StatusOr<HostCopies::DictionaryPtr> HostCopies::Load(
    const SourcePtr& source, dictionary::Half half, at::Device device) {
  std::optional<HostWeights> found;
  {
    absl::MutexLock lock(&mu_);
    for (auto it = copies_.begin(); it != copies_.end(); ++it) {
      if (it->digest != source->digest() || it->half != half) continue;
      found = it->weights;
      copies_.splice(copies_.begin(), copies_, it);
      break;
    }
  }
  if (found.has_value()) {
    return Dictionary::LoadFrom(*std::move(found), source, half, device);
  }
  if (!device.is_cuda() || budget_ == 0) {
    return Dictionary::Load(source, half, device);
  }
  using Read = absl::StatusOr<HostWeights>;
  ASSIGN_OR_RETURN(HostWeights weights,
                   model::CatchTorch("loading a dictionary", [&]() -> Read {
                     return dictionary::ReadWeights(*source, half);
                   }));
  if (weights.Bytes() <= budget_) {
    const Read pinned = model::CatchTorch(
        "pinning memory", [&]() -> Read { return weights.Pinned(); });
    // Where the host has none to give, there is no copy.
    if (pinned.ok()) {
      weights = *pinned;
      Keep(*source, half, *pinned);
    }
  }
  return Dictionary::LoadFrom(std::move(weights), source, half, device);
}

bool HostCopies::Has(const dictionary::DictionarySource& source,
                     dictionary::Half half) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(copies_.begin(), copies_.end(), [&](const Copy& copy) {
    return copy.digest == source.digest() && copy.half == half;
  });
}

int64_t HostCopies::bytes() const {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

void HostCopies::Keep(const dictionary::DictionarySource& source,
                      dictionary::Half half, HostWeights weights) {
  const int64_t bytes = weights.Bytes();
  if (bytes > budget_ || Has(source, half)) return;
  std::list<Copy> dropped;  // freed without the lock
  absl::MutexLock lock(&mu_);
  while (bytes_ + bytes > budget_) {
    bytes_ -= copies_.back().bytes;
    dropped.splice(dropped.begin(), copies_, std::prev(copies_.end()));
  }
  copies_.push_front({source.digest(), half, std::move(weights), bytes});
  bytes_ += bytes;
}

}  // namespace cupola::engine
