#include "server/engine/room_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/request_context.h"
#include "server/engine/retry_later.h"
#include "server/model/heap.h"

namespace cupola::engine {
namespace {

// How often who waits is looked at: a deadline and the age of an entry have no
// callback.
constexpr absl::Duration kLookEvery = absl::Milliseconds(5);
// Demands for the same beyond which those that nobody waits for are looked for.
constexpr size_t kSweepAt = 64;
constexpr double kRetrySeconds = 1;

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

RoomQueue::Key RoomQueue::KeyOf(const Demand& demand) {
  Key key = {demand.slots, demand.evicts};
  std::sort(key.first.begin(), key.first.end());
  key.first.erase(std::unique(key.first.begin(), key.first.end()),
                  key.first.end());
  return key;
}

void RoomQueue::Push(Demand demand) {
  After after;
  {
    absl::MutexLock lock(mu_);
    Line& line = lines_[demand.device];
    const Key key = KeyOf(demand);
    const auto refuse = demand.refuse;
    const absl::Status joined =
        stopping_ ? Stopped() : Join(line, key, std::move(demand));
    if (!joined.ok()) {
      after.calls.push_back([refuse, joined] { refuse(joined); });
    } else if (Group& group = line.groups.at(key); group.demands.size() == 1) {
      // The first of its kind may go ahead; the others wait with the first.
      Serve(line, group, /*blocked=*/line.order.front() != key, &after);
      if (group.demands.empty()) {
        line.order.pop_back();
        line.groups.erase(key);
      } else {
        ledger_->Wake();
      }
    }
  }
  after.dropped.clear();
  for (const auto& call : after.calls) call();
}

absl::Status RoomQueue::Join(Line& line, const Key& key, Demand demand) {
  const std::string client = demand.context.client;
  if (!client.empty()) {
    const auto found = line.clients.find(client);
    const int64_t own = found == line.clients.end() ? 0 : found->second;
    if (line.count >= kMaxWaiting || own >= kMaxWaitingPerClient) {
      return RetryLater(
          absl::StrCat(line.count,
                       " requests wait for weights to be loaded on ",
                       demand.device, ", ", own,
                       " of them this client's; the server takes ", kMaxWaiting,
                       " and ", kMaxWaitingPerClient, " of one client"),
          kRetrySeconds);
    }
  }
  ++line.count;
  ++line.clients[client];
  const auto [found, is_new] = line.groups.try_emplace(key);
  if (is_new) line.order.push_back(key);
  found->second.demands.push_back(std::move(demand));
  return absl::OkStatus();
}

RoomQueue::Demand RoomQueue::Leave(Line& line, Group& group,
                                   std::list<Demand>::iterator demand) {
  Demand left = std::move(*demand);
  group.demands.erase(demand);
  --line.count;
  const auto client = line.clients.find(left.context.client);
  if (--client->second == 0) line.clients.erase(client);
  return left;
}

void RoomQueue::Stop() {
  std::map<std::string, Line> lines;
  {
    absl::MutexLock lock(mu_);
    stopping_ = true;
    lines = std::exchange(lines_, {});
  }
  for (auto& [device, line] : lines) {
    for (auto& [key, group] : line.groups) {
      for (Demand& demand : group.demands) demand.refuse(Stopped());
    }
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

void RoomQueue::Sweep(Line& line, Group& group, bool all, After* after) {
  for (auto it = group.demands.begin(); it != group.demands.end();) {
    const absl::Status wanted = StillWanted(it->context);
    if (wanted.ok() && !all) return;
    const auto next = std::next(it);
    if (!wanted.ok()) {
      const Demand left = Leave(line, group, it);
      after->calls.push_back(
          [refuse = left.refuse, wanted] { refuse(wanted); });
    }
    it = next;
  }
}

void RoomQueue::Serve(Line& line, Group& group, bool blocked, After* after) {
  // Those behind the first, whose time may be up long before: only when there
  // are so many more that it costs nothing.
  const bool all = group.demands.size() > 2 * group.swept + kSweepAt;
  Sweep(line, group, all, after);
  if (all) group.swept = group.demands.size();
  if (group.demands.empty()) return;
  const Demand& first = group.demands.front();
  const int64_t missing = first.missing();
  const int64_t total = missing > 0 && budget_ > 0 ? first.total() : 0;
  absl::Status refused;
  if (total > budget_) {
    refused = absl::ResourceExhaustedError(
        absl::StrCat(first.what, " needs ", total, " bytes of ", first.device,
                     "; accepted: ", budget_, " (--device_memory)"));
  } else if (missing > 0) {
    if (blocked) return;
    if (!HasRoom(first, missing, after)) {
      if (first.evicts) return;
      refused = absl::ResourceExhaustedError(absl::StrCat(
          first.what, " needs ", missing, " bytes of ", first.device,
          ", where ", budget_ - ledger_->Of(first.device).bytes, " are free"));
    }
  }
  while (!group.demands.empty()) {
    Demand left = Leave(line, group, group.demands.begin());
    if (refused.ok()) {
      after->calls.push_back(left.start());
    } else {
      after->calls.push_back(
          [refuse = std::move(left.refuse), refused] { refuse(refused); });
    }
  }
}

bool RoomQueue::Serve(Line& line, After* after) {
  bool blocked = false;
  for (auto it = line.order.begin(); it != line.order.end();) {
    const auto group = line.groups.find(*it);
    Serve(line, group->second, blocked, after);
    if (group->second.demands.empty()) {
      line.groups.erase(group);
      it = line.order.erase(it);
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
      for (auto& [device, line] : lines_) waits |= Serve(line, &after);
    }
    after.dropped.clear();
    for (const auto& call : after.calls) call();
  }
}

}  // namespace cupola::engine
