#include "server/engine/residency_policy.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace cupola::engine {
namespace {

bool MayLeave(const Resident& resident, const RoomWanted& wanted) {
  const absl::Time ripe = resident.loaded_at + wanted.min_residency;
  return ripe <= wanted.now || ripe >= wanted.deadline;
}

// What is left on a device once everything placed there is resident; may be
// negative, since entries take turns.
int64_t Left(const DeviceRoom& device) {
  const int64_t budget = device.budget > 0
                             ? device.budget
                             : std::numeric_limits<int64_t>::max() / 2;
  return budget - device.placed;
}

}  // namespace

std::vector<size_t> ChooseEvictions(const std::vector<Resident>& residents,
                                    const RoomWanted& wanted) {
  std::vector<size_t> order;
  for (size_t i = 0; i < residents.size(); ++i) {
    if (residents[i].bytes > 0 && MayLeave(residents[i], wanted)) {
      order.push_back(i);
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const Resident &x = residents[a], &y = residents[b];
    if (x.in_use != y.in_use) return y.in_use;
    return x.last_use < y.last_use;
  });
  std::vector<size_t> chosen;
  int64_t freed = 0;
  for (size_t i : order) {
    if (freed >= wanted.bytes) break;
    chosen.push_back(i);
    freed += residents[i].bytes;
  }
  if (freed < wanted.bytes) return {};
  // The last one may have made earlier, smaller ones unnecessary: those used
  // most recently stay first.
  for (size_t k = chosen.size(); k-- > 0;) {
    const int64_t bytes = residents[chosen[k]].bytes;
    if (freed - bytes < wanted.bytes) continue;
    freed -= bytes;
    chosen.erase(chosen.begin() + static_cast<std::ptrdiff_t>(k));
  }
  return chosen;
}

size_t ChooseDevice(const std::vector<DeviceRoom>& devices, int64_t bytes) {
  const auto fits = [bytes](const DeviceRoom& device) {
    return device.budget == 0 || bytes <= device.budget;
  };
  size_t best = 0;
  for (size_t i = 1; i < devices.size(); ++i) {
    const bool better = fits(devices[i]) != fits(devices[best])
                            ? fits(devices[i])
                            : Left(devices[i]) > Left(devices[best]);
    if (better) best = i;
  }
  return best;
}

}  // namespace cupola::engine
