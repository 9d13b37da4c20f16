#ifndef CUPOLA_SERVER_ENGINE_ROOM_QUEUE_H_
#define CUPOLA_SERVER_ENGINE_ROOM_QUEUE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/memory_ledger.h"
#include "server/engine/request_context.h"
#include "server/engine/residency_policy.h"

namespace cupola::engine {

// What may be loaded and dropped, known by its address.
using SlotId = const void*;

// Requests that need weights which are not there wait here until a device has
// room for all that they lack, and only then begin to load. Who waits holds
// nothing, so nobody waits for memory that another waiting request keeps; who
// has begun has its room for certain. In order of arrival per device; a request
// all of whose weights are there, or being loaded for others, goes ahead.
//
// Weights are dropped for the first in line as ChooseEvictions says. What was
// dropped counts until its last user is gone.
class RoomQueue {
 public:
  // What the owner of the slots does for the queue; all under the lock.
  class Slots {
   public:
    virtual ~Slots() = default;
    // The slots of a device that hold weights.
    struct Held {
      SlotId id;
      Resident resident;
    };
    virtual std::vector<Held> HeldOn(const std::string& device) = 0;
    // Empties a slot. The weights go with the returned pointer, or later.
    virtual std::shared_ptr<const void> Drop(SlotId id) = 0;
  };

  struct Demand {
    std::string device;
    std::string what;  // for messages
    RequestContext context;
    // False: room is taken, never made.
    bool evicts = true;
    std::vector<SlotId> slots;
    // Bytes of the slots that are neither filled nor being filled; of all.
    std::function<int64_t()> missing, total;
    // Takes the room and begins: under the lock. What it returns is called
    // without it.
    std::function<std::function<void()>()> start;
    // Called without the lock, instead of start.
    std::function<void(absl::Status)> refuse;
  };

  // `budget`: of each device; 0: none. `mu` guards the slots.
  RoomQueue(absl::Mutex* mu, std::shared_ptr<MemoryLedger> ledger,
            int64_t budget, absl::Duration min_residency, Slots* slots);
  ~RoomQueue();  // as Stop

  // Starts the demand at once or later, or refuses it: RESOURCE_EXHAUSTED with
  // both numbers where the budget does not hold it, or (evicts is false) what
  // is free; as StillWanted says when its time is up; UNAVAILABLE after Stop.
  void Push(Demand demand) ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  int64_t budget() const { return budget_; }

 private:
  // What is left to do once the lock is released.
  struct After {
    std::vector<std::function<void()>> calls;
    std::vector<std::shared_ptr<const void>> dropped;
  };
  // Starts and refuses whom it can. True: somebody waits.
  bool Serve(const std::string& device, After* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether there is room now. Drops what has to go for it.
  bool HasRoom(const Demand& demand, int64_t bytes, After* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Loop();

  absl::Mutex* const mu_;
  const std::shared_ptr<MemoryLedger> ledger_;
  const int64_t budget_;
  const absl::Duration min_residency_;
  Slots* const slots_;
  std::map<std::string, std::list<Demand>> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ROOM_QUEUE_H_
