#include "server/engine/room_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/request_context.h"
#include "server/model/heap.h"

namespace cupola::engine {
namespace {

// How often who waits is looked at: a deadline and the age of an entry have no
// callback.
constexpr absl::Duration kLookEvery = absl::Milliseconds(5);

absl::Status Stopped() {
  return absl::UnavailableError("the server is shutting down");
}

}  // namespace

RoomQueue::RoomQueue(absl::Mutex* mu, std::shared_ptr<MemoryLedger> ledger,
                     int64_t budget, absl::Duration min_residency, Slots* slots)
    : mu_(mu),
      ledger_(std::move(ledger)),
      budget_(budget),
      min_residency_(min_residency),
      slots_(slots),
      thread_([this] { Loop(); }) {}

RoomQueue::~RoomQueue() { Stop(); }

void RoomQueue::Push(Demand demand) {
  After after;
  {
    absl::MutexLock lock(mu_);
    if (stopping_) {
      after.calls.push_back([refuse = demand.refuse] { refuse(Stopped()); });
    } else {
      const std::string device = demand.device;
      waiting_[device].push_back(std::move(demand));
      if (Serve(device, &after)) ledger_->Wake();
    }
  }
  after.dropped.clear();
  for (const auto& call : after.calls) call();
}

void RoomQueue::Stop() {
  std::map<std::string, std::list<Demand>> waiting;
  {
    absl::MutexLock lock(mu_);
    stopping_ = true;
    waiting = std::exchange(waiting_, {});
  }
  for (auto& [device, demands] : waiting) {
    for (Demand& demand : demands) demand.refuse(Stopped());
  }
  ledger_->Wake();
  if (thread_.joinable()) thread_.join();
}

bool RoomQueue::HasRoom(const Demand& demand, int64_t bytes, After* after) {
  if (budget_ == 0 || bytes == 0) return true;
  const MemoryLedger::Use use = ledger_->Of(demand.device);
  if (use.bytes + bytes <= budget_) return true;
  const int64_t missing = use.bytes - use.leaving + bytes - budget_;
  if (!demand.evicts || missing <= 0) return false;
  std::vector<SlotId> ids;
  std::vector<Resident> residents;
  for (const Slots::Held& held : slots_->HeldOn(demand.device)) {
    // What the demand needs beside is no room for it.
    if (std::count(demand.slots.begin(), demand.slots.end(), held.id) > 0) {
      continue;
    }
    ids.push_back(held.id);
    residents.push_back(held.resident);
  }
  const RoomWanted wanted{.bytes = missing,
                          .now = absl::Now(),
                          .deadline = demand.context.deadline,
                          .min_residency = min_residency_};
  for (size_t i : ChooseEvictions(residents, wanted)) {
    after->dropped.push_back(slots_->Drop(ids[i]));
  }
  return false;  // free when what was dropped is
}

bool RoomQueue::Serve(const std::string& device, After* after) {
  std::list<Demand>& waiting = waiting_[device];
  bool blocked = false;  // somebody before waits for room
  for (auto it = waiting.begin(); it != waiting.end();) {
    absl::Status refused = StillWanted(it->context);
    bool starts = false;
    if (refused.ok()) {
      const int64_t missing = it->missing();
      const int64_t total = missing > 0 && budget_ > 0 ? it->total() : 0;
      if (total > budget_) {
        refused = absl::ResourceExhaustedError(
            absl::StrCat(it->what, " needs ", total, " bytes of ", device,
                         "; accepted: ", budget_, " (--device_memory)"));
      } else if (missing == 0) {
        starts = true;
      } else if (!blocked) {
        starts = HasRoom(*it, missing, after);
        if (!starts && !it->evicts) {
          refused = absl::ResourceExhaustedError(absl::StrCat(
              it->what, " needs ", missing, " bytes of ", device, ", where ",
              budget_ - ledger_->Of(device).bytes, " are free"));
        }
      }
    }
    if (starts) {
      after->calls.push_back(it->start());
      it = waiting.erase(it);
    } else if (!refused.ok()) {
      after->calls.push_back(
          [refuse = std::move(it->refuse), refused] { refuse(refused); });
      it = waiting.erase(it);
    } else {
      blocked = true;
      ++it;
    }
  }
  return blocked;
}

void RoomQueue::Loop() {
  bool waits = false;
  while (true) {
    // Memory that was freed goes back to the system, so that a load finds it.
    if (ledger_->AwaitFreed(waits ? kLookEvery : absl::InfiniteDuration())) {
      model::ReturnFreeMemory();
    }
    After after;
    {
      absl::MutexLock lock(mu_);
      if (stopping_) return;
      waits = false;
      for (const auto& [device, demands] : waiting_) {
        waits |= Serve(device, &after);
      }
    }
    after.dropped.clear();
    for (const auto& call : after.calls) call();
  }
}

}  // namespace cupola::engine
