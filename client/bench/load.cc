#include "client/bench/load.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace cupola::bench {

Load::Load(int64_t first_index, const Ask& ask, Recorder* recorder)
    : ask_(ask), recorder_(recorder), next_index_(first_index) {}

void Load::Start(absl::Time start) {
  int64_t index;
  {
    absl::MutexLock lock(&mu_);
    ++in_flight_;
    index = next_index_++;
  }
  ask_(index, [this, start](const Outcome& outcome) {
    recorder_->Add(outcome, absl::ToDoubleSeconds(absl::Now() - start));
    absl::MutexLock lock(&mu_);
    --in_flight_;
    Ended(outcome);
  });
}

int64_t Load::Stop(absl::Duration patience) {
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return in_flight_ == 0;
  };
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&idle), patience);
  return in_flight_;
}

int64_t Load::next_index() const {
  absl::MutexLock lock(&mu_);
  return next_index_;
}

ClosedLoad::ClosedLoad(int64_t clients, int64_t first_index, const Ask& ask,
                       Recorder* recorder)
    : Load(first_index, ask, recorder) {
  absl::MutexLock lock(&mu_);
  const absl::Time now = absl::Now();
  for (int64_t i = 0; i < clients; ++i) due_.push(now);
}

void ClosedLoad::Ended(const Outcome& outcome) {
  absl::Time next = absl::Now();
  if (outcome.code != absl::StatusCode::kOk) {
    next += outcome.retry_delay.value_or(kErrorPause);
  }
  due_.push(next);
}

void ClosedLoad::RunUntil(absl::Time end) {
  while (true) {
    {
      const auto waiting = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return !due_.empty();
      };
      absl::MutexLock lock(&mu_);
      if (!mu_.AwaitWithDeadline(absl::Condition(&waiting), end)) return;
      const absl::Time soonest = due_.top();
      const auto sooner = [this, soonest]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return due_.top() < soonest;
      };
      // Until then another client may become free, and be due before.
      mu_.AwaitWithDeadline(absl::Condition(&sooner), std::min(soonest, end));
      const absl::Time now = absl::Now();
      if (now >= end) return;
      if (due_.top() > now) continue;
      due_.pop();
    }
    Start(absl::Now());
  }
}

OpenLoad::OpenLoad(Arrivals arrivals, int64_t max_in_flight,
                   int64_t first_index, const Ask& ask, Recorder* recorder)
    : Load(first_index, ask, recorder),
      arrivals_(std::move(arrivals)),
      max_in_flight_(max_in_flight) {}

void OpenLoad::RunUntil(absl::Time end) {
  if (!begin_.has_value()) {
    begin_ = absl::Now();
    next_ = *begin_ + absl::Seconds(arrivals_.Next());
  }
  end_ = end;
  const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return in_flight_ < max_in_flight_;
  };
  while (next_ < end) {
    absl::SleepFor(next_ - absl::Now());
    {
      absl::MutexLock lock(&mu_);
      if (!mu_.AwaitWithDeadline(absl::Condition(&room), end)) return;
    }
    if (absl::Now() >= end) return;  // behind; the rest waits longer
    Start(next_);
    next_ = *begin_ + absl::Seconds(arrivals_.Next());
  }
  absl::SleepFor(end - absl::Now());
}

int64_t OpenLoad::CountBacklog() {
  int64_t backlog = 0;
  for (; begin_.has_value() && next_ < end_; ++backlog) {
    next_ = *begin_ + absl::Seconds(arrivals_.Next());
  }
  return backlog;
}

}  // namespace cupola::bench
