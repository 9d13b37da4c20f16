#ifndef CUPOLA_SERVER_ENGINE_ROOM_QUEUE_H_
#define CUPOLA_SERVER_ENGINE_ROOM_QUEUE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
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
// has begun has its room for certain. In order of arrival per device, those who
// want the same weights together with the first of them; a request all of whose
// weights are there, or being loaded for others, goes ahead. However many wait,
// a look at the queue costs no more than what they want differs.
//
// Weights are dropped for the first in line as ChooseEvictions says. What was
// dropped counts until its last user is gone.
class RoomQueue {
 public:
  // How many may wait for a device, and of these of one client; the server's
  // own demands, which have none, always may.
  static constexpr int64_t kMaxWaiting = 1 << 13,
                           kMaxWaitingPerClient = 1 << 11;

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
  // is free, or with a retry delay where too many wait already; as StillWanted
  // says when its time is up, at the latest when its turn has come; UNAVAILABLE
  // after Stop.
  void Push(Demand demand) ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  int64_t budget() const { return budget_; }

 private:
  // What is left to do once the lock is released.
  struct After {
    std::vector<std::function<void()>> calls;
    std::vector<std::shared_ptr<const void>> dropped;
  };
  // Demands for the same.
  struct Group {
    std::list<Demand> demands;
    size_t swept = 0;  // how many were left by the last Sweep
  };
  using Key = std::pair<std::vector<SlotId>, bool>;  // the slots, evicts
  // Who waits for one device.
  struct Line {
    std::list<Key> order;
    std::map<Key, Group> groups;
    int64_t count = 0;
    std::map<std::string, int64_t> clients;  // how many of each
  };
  static Key KeyOf(const Demand& demand);

  // Refuses a demand that would be one too many, else it waits.
  absl::Status Join(Line& line, const Key& key, Demand demand)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes a demand out of its group.
  Demand Leave(Line& line, Group& group, std::list<Demand>::iterator demand)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Refuses those of a group that nobody waits for any more: the first ones, or
  // all.
  void Sweep(Line& line, Group& group, bool all, After* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Starts or refuses a group, whose demands then are none, or leaves it
  // waiting. `blocked`: somebody before it waits for room.
  void Serve(Line& line, Group& group, bool blocked, After* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // All groups in order. True: somebody waits.
  bool Serve(Line& line, After* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether there is room now. Drops what has to go for it.
  bool HasRoom(const Demand& demand, int64_t bytes, After* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Loop();

  absl::Mutex* const mu_;
  const std::shared_ptr<MemoryLedger> ledger_;
  const int64_t budget_;
  const absl::Duration min_residency_;
  Slots* const slots_;
  std::map<std::string, Line> lines_ ABSL_GUARDED_BY(mu_);  // by device
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ROOM_QUEUE_H_
