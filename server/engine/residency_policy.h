#ifndef CUPOLA_SERVER_ENGINE_RESIDENCY_POLICY_H_
#define CUPOLA_SERVER_ENGINE_RESIDENCY_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

// Who leaves a device's memory, and where an entry goes: pure functions over
// plain structs, the time among them.

namespace cupola::engine {

// A model or a dictionary whose weights are on the device.
struct Resident {
  int64_t bytes = 0;
  absl::Time loaded_at, last_use;
  bool in_use = false;  // a request holds it
};

struct RoomWanted {
  int64_t bytes = 0;  // to be freed beyond what is free or becoming free
  absl::Time now;
  // When who waits for the room gives up.
  absl::Time deadline = absl::InfiniteFuture();
  absl::Duration min_residency;
};

// Which of `residents` to drop, by index, so that together they hold at least
// wanted.bytes; empty when nothing is to be dropped now: nothing is wanted, or
// those who may leave do not suffice, and leaving alone would gain nothing.
//
// First those that nobody uses, the least recently used first; then, the same
// way, those in use: running requests keep theirs and finish, the memory comes
// free after the last of them, and no entry that is always busy keeps another
// one out for good. One that was loaded less than min_residency ago stays, so
// that two who need each other's room do not load in turns, unless who waits
// would be gone before it may leave. No more leave than must: one without
// which the rest suffice stays.
std::vector<size_t> ChooseEvictions(const std::vector<Resident>& residents,
                                    const RoomWanted& wanted);

// A device as placement sees it.
struct DeviceRoom {
  int64_t budget = 0;  // 0: without a limit
  int64_t placed = 0;  // bytes of all entries that were put here, loaded or not
};

// The device for an entry of `bytes` that names none: among those whose budget
// holds it, the one where most is left once all entries that were put there are
// resident; among equals, and where none holds it, the first of the most room.
// REQUIRES: devices is not empty.
size_t ChooseDevice(const std::vector<DeviceRoom>& devices, int64_t bytes);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_RESIDENCY_POLICY_H_
