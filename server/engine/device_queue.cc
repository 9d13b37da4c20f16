#include "server/engine/device_queue.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "server/engine/batch_policy.h"
#include "server/engine/retry_later.h"

namespace cupola::engine {
namespace {

uint64_t GroupOf(const Part& part) {
  // A job's chunk is a group of its own, and so is a request whose work is done
  // in steps: it would end, or fail, with the others of its batch.
  if (part.bulk || part.analysis->stepwise()) {
    return reinterpret_cast<uint64_t>(part.analysis.get());
  }
  const uint64_t model = reinterpret_cast<uint64_t>(part.model.get());
  if (!part.sequence->tokens.empty()) return model;
  uint64_t group;
  std::memcpy(&group, part.identity.data(), sizeof(group));
  return group ^ model;
}

// What shares a pass: questions about the same tokens that only read it. Equal
// hashes of other tokens make a batch that is larger than its budget, no more.
uint64_t RowOf(const Part& part) {
  if (part.sequence->tokens.empty() || part.analysis->captures().empty()) {
    return 0;
  }
  return absl::HashOf(part.sequence->tokens) | 1;
}

// About as long as one dispatch holds a device while others wait.
constexpr double kBatchSeconds = 0.1;

absl::Status Full(absl::string_view whose, int64_t depth, int64_t accepted,
                  int64_t more) {
  return RetryLater(
      absl::StrCat("the device's queue holds ", depth, " prompts", whose,
                   " and takes ", accepted, "; this request has ", more),
      /*seconds=*/1);
}

}  // namespace

absl::Status DeviceQueue::Push(std::vector<Part> parts) {
  if (parts.empty()) return absl::OkStatus();
  const bool bulk = parts.front().bulk;
  const uint64_t client = parts.front().client;
  const int64_t more = parts.size();
  for (Part& part : parts) {
    part.group = GroupOf(part);
    part.row = RowOf(part);
  }
  absl::MutexLock lock(&mu_);
  if (closed_) return absl::UnavailableError("the server is shutting down");
  const int64_t all = parts_.size();
  const int64_t depth = bulk ? bulk_parts_ : all - bulk_parts_;
  if (depth + more > options_.max_parts) {
    return Full(bulk ? " of jobs" : "", depth, options_.max_parts, more);
  }
  const int64_t own = SharesOf(bulk).queued(client);
  if (own + more > options_.max_parts_per_client) {
    return Full(" of this client", own, options_.max_parts_per_client, more);
  }
  SharesOf(bulk).Enter(client, more);
  if (bulk) bulk_parts_ += more;
  const absl::Time now = absl::Now();
  for (Part& part : parts) {
    part.enqueued = now;
    parts_.push_back(std::move(part));
  }
  return absl::OkStatus();
}

std::vector<Part> DeviceQueue::PopBatch(const Wanted& wanted) {
  const auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || !wanted.wait || (!parts_.empty() && !held_);
  };
  while (true) {
    std::list<Part> unwanted;
    std::vector<Part> batch;
    {
      absl::MutexLock lock(&mu_, absl::Condition(&ready));
      if (closed_) return {};
      unwanted = TakeUnwanted();
      if (!held_) batch = TakeBatch(wanted);
    }
    for (Part& part : unwanted) {
      // Somebody who has boarded since looks for another flight.
      absl::Status status = part.flight->StillWanted();
      if (status.ok()) status = absl::CancelledError("nobody waited");
      part.flight->Land(status);
    }
    if (!batch.empty() || !wanted.wait) return batch;
  }
}

void DeviceQueue::Take(std::list<Part>::iterator part, std::list<Part>& to) {
  SharesOf(part->bulk).Leave(part->client);
  if (part->bulk) --bulk_parts_;
  to.splice(to.end(), parts_, part);
}

std::list<Part> DeviceQueue::TakeUnwanted() {
  std::list<Part> unwanted;
  for (auto part = parts_.begin(); part != parts_.end();) {
    const auto here = part++;
    if (!here->flight->StillWanted().ok()) Take(here, unwanted);
  }
  return unwanted;
}

std::vector<Part> DeviceQueue::TakeBatch(const Wanted& wanted) {
  std::vector<QueuedPart> view;
  std::vector<std::list<Part>::iterator> places;  // of the view's parts
  for (auto part = parts_.begin(); part != parts_.end(); ++part) {
    const bool steps = part->analysis->stepwise();
    if (steps && !wanted.stepwise) continue;
    // The worker is busy with what somebody waits for.
    if (part->bulk && !wanted.wait) continue;
    if (!steps && part->seconds > wanted.most_seconds) continue;
    view.push_back({part->group, steps ? 1 : part->size(), part->bulk,
                    part->client, part->row, part->seconds});
    places.push_back(part);
  }
  BatchBudget budget{options_.batch_tokens, wanted.most_seconds};
  // Others wait behind what one client has sent.
  if (shares_.waiting_clients() > 1) {
    budget.seconds = std::min(budget.seconds, kBatchSeconds);
  }
  // Where people wait for something, jobs do not count.
  const bool bulk =
      std::all_of(view.begin(), view.end(),
                  [](const QueuedPart& part) { return part.bulk; });
  ClientShares& shares = SharesOf(bulk);
  const auto given = [&shares](uint64_t client) {
    return shares.given(client);
  };
  std::list<Part> taken;
  for (size_t i : FormBatch(view, budget, given)) {
    shares.Give(view[i].client, view[i].seconds);
    Take(places[i], taken);
  }
  return {std::make_move_iterator(taken.begin()),
          std::make_move_iterator(taken.end())};
}

void DeviceQueue::Close(absl::Status status) {
  std::list<Part> left;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    while (!parts_.empty()) Take(parts_.begin(), left);
  }
  for (Part& part : left) part.flight->Land(status);
}

int64_t DeviceQueue::depth() const {
  absl::MutexLock lock(&mu_);
  return parts_.size();
}

int64_t DeviceQueue::bulk_depth() const {
  absl::MutexLock lock(&mu_);
  return bulk_parts_;
}

void DeviceQueue::HoldForTesting(bool held) {
  absl::MutexLock lock(&mu_);
  held_ = held;
}

}  // namespace cupola::engine
