#include "server/engine/client_shares.h"

#include <algorithm>
#include <limits>

namespace cupola::engine {

double ClientShares::Floor() const {
  double floor = std::numeric_limits<double>::infinity();
  for (const auto& [client, share] : shares_) {
    if (share.queued > 0) floor = std::min(floor, share.given);
  }
  return floor;
}

void ClientShares::Enter(uint64_t client, int64_t parts) {
  if (queued(client) == 0) {
    const double floor = Floor();
    // Who is at the floor or below comes back level anyway (everybody is, when
    // nobody waits).
    std::erase_if(shares_, [&](const auto& item) {
      return item.second.queued == 0 && item.second.given <= floor;
    });
    if (!shares_.empty()) {
      double& given = shares_[client].given;
      given = std::max(given, floor);
    }
  }
  shares_[client].queued += parts;
}

void ClientShares::Leave(uint64_t client) { --shares_.at(client).queued; }

void ClientShares::Give(uint64_t client, double amount) {
  shares_[client].given += amount;
}

int64_t ClientShares::waiting_clients() const {
  return std::count_if(shares_.begin(), shares_.end(),
                       [](const auto& item) { return item.second.queued > 0; });
}

int64_t ClientShares::queued(uint64_t client) const {
  const auto found = shares_.find(client);
  return found == shares_.end() ? 0 : found->second.queued;
}

double ClientShares::given(uint64_t client) const {
  const auto found = shares_.find(client);
  return found == shares_.end() ? 0 : found->second.given;
}

}  // namespace cupola::engine
