#include "server/engine/wait_list.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace cupola::engine {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(10);

}  // namespace

WaitList::WaitList() : thread_([this] { Loop(); }) {}

WaitList::~WaitList() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void WaitList::Watch(std::shared_ptr<Waiter> waiter) {
  absl::MutexLock lock(&mu_);
  waiters_.push_back(std::move(waiter));
}

void WaitList::EndAll(const absl::Status& status) {
  Waiters all;
  {
    absl::MutexLock lock(&mu_);
    all = std::exchange(waiters_, {});
  }
  for (const auto& waiter : all) waiter->End(status);
}

void WaitList::Loop() {
  const auto needed = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stopping_ || !waiters_.empty();
  };
  while (true) {
    Waiters unwanted;
    {
      absl::MutexLock lock(&mu_, absl::Condition(&needed));
      mu_.AwaitWithTimeout(absl::Condition(&stopping_), kLookEvery);
      if (stopping_) return;
      const auto end = std::partition(
          waiters_.begin(), waiters_.end(), [](const auto& waiter) {
            return !waiter->told && StillWanted(waiter->context).ok();
          });
      unwanted.assign(end, waiters_.end());
      waiters_.erase(end, waiters_.end());
    }
    for (const auto& waiter : unwanted) {
      const absl::Status wanted = StillWanted(waiter->context);
      if (!wanted.ok()) waiter->End(wanted);  // the others have been told
    }
  }
}

}  // namespace cupola::engine
