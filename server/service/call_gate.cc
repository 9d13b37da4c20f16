#include "server/service/call_gate.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace cupola::service {

absl::Status ShuttingDown() {
  return absl::UnavailableError("the server is shutting down");
}

bool CallGate::Enter() {
  absl::MutexLock lock(&mu_);
  last_ = absl::Now();
  if (shut_) return false;
  ++inside_;
  return true;
}

void CallGate::Leave() {
  absl::MutexLock lock(&mu_);
  --inside_;
}

void CallGate::Shut() {
  absl::MutexLock lock(&mu_);
  shut_ = true;
}

bool CallGate::shut() const {
  absl::MutexLock lock(&mu_);
  return shut_;
}

void CallGate::AwaitEmpty(absl::Time deadline) {
  const auto empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return inside_ == 0;
  };
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithDeadline(absl::Condition(&empty), deadline);
}

void CallGate::AwaitQuiet(absl::Duration spell, absl::Time deadline) {
  while (true) {
    absl::Time until;
    {
      absl::MutexLock lock(&mu_);
      until = std::min(last_ + spell, deadline);
    }
    const absl::Time now = absl::Now();
    if (now >= until) return;
    absl::SleepFor(until - now);
  }
}

}  // namespace cupola::service
