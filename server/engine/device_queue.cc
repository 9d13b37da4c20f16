#include "server/engine/device_queue.h"

#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/batch_policy.h"

namespace cupola::engine {
namespace {

uint64_t GroupOf(const Part& part) {
  // A job's chunk is a group of its own, and so is a request whose work is done
  // in steps: it would end, or fail, with the others of its batch.
  if (part.context.bulk || part.analysis->stepwise()) {
    return reinterpret_cast<uint64_t>(part.analysis.get());
  }
  const uint64_t model = reinterpret_cast<uint64_t>(part.model.get());
  if (!part.sequence->tokens.empty()) return model;
  uint64_t group;
  std::memcpy(&group, part.identity.data(), sizeof(group));
  return group ^ model;
}

}  // namespace

DeviceQueue::DeviceQueue(int64_t max_parts, int64_t batch_tokens)
    : max_parts_(max_parts), batch_tokens_(batch_tokens) {}

absl::Status DeviceQueue::Push(std::vector<Part> parts) {
  absl::MutexLock lock(&mu_);
  if (closed_) return absl::UnavailableError("the server is shutting down");
  const int64_t depth = parts_.size(), more = parts.size();
  if (depth + more > max_parts_) {
    absl::Status status = absl::ResourceExhaustedError(
        absl::StrCat("the device's queue holds ", depth, " prompts and takes ",
                     max_parts_, "; this request has ", more));
    // Read by the transport, which tells the client when to come back.
    status.SetPayload("retry-delay-ms", absl::Cord("1000"));
    return status;
  }
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
    std::vector<Part> unwanted, batch;
    {
      absl::MutexLock lock(&mu_, absl::Condition(&ready));
      if (closed_) return {};
      unwanted = TakeUnwanted();
      if (!held_) batch = TakeBatch(wanted);
    }
    for (Part& part : unwanted) {
      part.done(StillWanted(part.context), {});
    }
    if (!batch.empty() || !wanted.wait) return batch;
  }
}

std::vector<Part> DeviceQueue::TakeUnwanted() {
  std::vector<Part> unwanted;
  std::deque<Part> wanted;
  for (Part& part : parts_) {
    if (StillWanted(part.context).ok()) {
      wanted.push_back(std::move(part));
    } else {
      unwanted.push_back(std::move(part));
    }
  }
  parts_ = std::move(wanted);
  return unwanted;
}

std::vector<Part> DeviceQueue::TakeBatch(const Wanted& wanted) {
  std::vector<QueuedPart> view;
  std::vector<size_t> places;  // of the view's parts
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const bool steps = part.analysis->stepwise();
    if (steps && !wanted.stepwise) continue;
    // The worker is busy with steps that somebody waits for.
    if (part.context.bulk && !wanted.wait) continue;
    view.push_back({GroupOf(part), steps ? 1 : part.size(), part.context.bulk});
    places.push_back(i);
  }
  if (view.empty()) return {};
  std::vector<size_t> chosen = FormBatch(view, batch_tokens_);
  for (size_t& place : chosen) place = places[place];

  std::vector<Part> batch;
  std::deque<Part> rest;
  size_t next = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const bool taken = next < chosen.size() && chosen[next] == i;
    if (taken) {
      batch.push_back(std::move(parts_[i]));
      ++next;
    } else {
      rest.push_back(std::move(parts_[i]));
    }
  }
  parts_ = std::move(rest);
  return batch;
}

void DeviceQueue::Close(absl::Status status) {
  std::deque<Part> left;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    left = std::move(parts_);
    parts_.clear();
  }
  for (Part& part : left) part.done(status, {});
}

int64_t DeviceQueue::depth() const {
  absl::MutexLock lock(&mu_);
  return parts_.size();
}

void DeviceQueue::HoldForTesting(bool held) {
  absl::MutexLock lock(&mu_);
  held_ = held;
}

}  // namespace cupola::engine
