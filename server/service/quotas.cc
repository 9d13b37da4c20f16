#include "server/service/quotas.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "server/service/status.h"

namespace cupola::service {
namespace {

constexpr size_t kMaxClients = 1 << 16;
// A scan of all of them holds everybody up.
constexpr absl::Duration kForgetEvery = absl::Seconds(1);
constexpr double kSeconds = 60;
// When one of a client's own requests ends is not known.
constexpr int64_t kConcurrentRetryMilliseconds = 500;
constexpr int64_t kFullRetryMilliseconds = 5000;

absl::Status Exhausted(const std::string& text, int64_t retry_milliseconds) {
  absl::Status status = absl::ResourceExhaustedError(text);
  status.SetPayload(kRetryDelayPayload,
                    absl::Cord(absl::StrCat(retry_milliseconds)));
  return status;
}

// Until a bucket that fills at `per_minute` has gained `missing`.
int64_t MillisecondsUntil(double missing, int64_t per_minute) {
  return std::max<int64_t>(
      1, std::llround(std::ceil(1000 * missing * kSeconds /
                                static_cast<double>(per_minute))));
}

}  // namespace

void Quotas::Fill(Use* use, absl::Time now) {
  const double minutes =
      std::max(0.0, absl::ToDoubleSeconds(now - use->filled)) / kSeconds;
  use->filled = std::max(use->filled, now);
  const auto fill = [minutes](double level, int64_t per_minute) {
    const double most = static_cast<double>(per_minute);
    return std::min(most, level + minutes * most);
  };
  use->requests = fill(use->requests, use->limits.requests_per_minute);
  use->bytes = fill(use->bytes, use->limits.bytes_per_minute);
}

void Quotas::SetLimits(const Limits& limits, Use* use) {
  const auto set = [](int64_t before, int64_t after, double level) {
    const double most = static_cast<double>(after);
    return before == 0 ? most : std::min(level, most);
  };
  use->requests = set(use->limits.requests_per_minute,
                      limits.requests_per_minute, use->requests);
  use->bytes =
      set(use->limits.bytes_per_minute, limits.bytes_per_minute, use->bytes);
  use->limits = limits;
}

bool Quotas::IsIdle(const Use& use) {
  return use.inside == 0 &&
         use.requests >= static_cast<double>(use.limits.requests_per_minute) &&
         use.bytes >= static_cast<double>(use.limits.bytes_per_minute);
}

void Quotas::Forget(absl::Time now) {
  for (auto it = uses_.begin(); it != uses_.end();) {
    Fill(&it->second, now);
    it = IsIdle(it->second) ? uses_.erase(it) : std::next(it);
  }
}

absl::Status Quotas::Enter(const std::string& client, const Limits& limits,
                           absl::Time now) {
  if (!limits.any()) return absl::OkStatus();
  absl::MutexLock lock(&mu_);
  auto found = uses_.find(client);
  if (found == uses_.end()) {
    if (uses_.size() >= kMaxClients && now >= next_forget_) {
      next_forget_ = now + kForgetEvery;
      Forget(now);
    }
    if (uses_.size() >= kMaxClients) {
      return Exhausted("too many clients at a time", kFullRetryMilliseconds);
    }
    found = uses_.emplace(client, Use()).first;
    found->second.filled = now;
  }
  Use& use = found->second;
  Fill(&use, now);
  SetLimits(limits, &use);
  if (limits.concurrent > 0 && use.inside >= limits.concurrent) {
    return Exhausted(absl::StrCat("client \"", client, "\" has ", use.inside,
                                  " requests running; accepted: ",
                                  limits.concurrent, " at a time"),
                     kConcurrentRetryMilliseconds);
  }
  if (limits.requests_per_minute > 0 && use.requests < 1) {
    return Exhausted(
        absl::StrCat("client \"", client, "\" has asked too often; accepted: ",
                     limits.requests_per_minute, " requests per minute"),
        MillisecondsUntil(1 - use.requests, limits.requests_per_minute));
  }
  if (limits.bytes_per_minute > 0 && use.bytes <= 0) {
    return Exhausted(
        absl::StrCat("client \"", client, "\" has moved too much; accepted: ",
                     limits.bytes_per_minute, " bytes per minute"),
        MillisecondsUntil(1 - use.bytes, limits.bytes_per_minute));
  }
  if (limits.requests_per_minute > 0) use.requests -= 1;
  ++use.inside;
  return absl::OkStatus();
}

void Quotas::Leave(const std::string& client) {
  absl::MutexLock lock(&mu_);
  const auto found = uses_.find(client);
  if (found != uses_.end() && found->second.inside > 0) --found->second.inside;
}

void Quotas::CountBytes(const std::string& client, int64_t bytes) {
  absl::MutexLock lock(&mu_);
  const auto found = uses_.find(client);
  if (found != uses_.end() && found->second.limits.bytes_per_minute > 0) {
    found->second.bytes -= static_cast<double>(bytes);
  }
}

}  // namespace cupola::service
