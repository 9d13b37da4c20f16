#include "server/engine/admission.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "server/engine/retry_later.h"

namespace cupola::engine {
namespace {

constexpr double kShortestRetry = 0.1, kLongestRetry = 60;
// An estimate may be wrong: a request is refused for its deadline only where
// not even this much of the estimated time is there.
constexpr double kCertain = 0.25;

std::string Milliseconds(double seconds) {
  return absl::StrCat(static_cast<int64_t>(seconds * 1000), " ms");
}

absl::Status Full(absl::string_view why, double wait) {
  return RetryLater(why, std::clamp(wait, kShortestRetry, kLongestRetry));
}

int64_t Missing(const Estimate& estimate) {
  return estimate.parts - estimate.cached;
}

}  // namespace

Admission::Ticket::Ticket(Admission* admission, const RequestContext& context,
                          const Estimate& estimate)
    : admission_(admission),
      client_(context.client),
      bulk_(context.bulk),
      parts_(Missing(estimate)),
      seconds_(estimate.seconds),
      bytes_(estimate.bytes) {
  (bulk_ ? admission_->bulk_bytes_ : admission_->bytes_) += bytes_;
  if (bulk_) return;
  ++admission_->requests_;
  admission_->parts_ += parts_;
  Pending& mine = admission_->clients_[client_];
  ++mine.requests;
  mine.parts += parts_;
  mine.seconds += seconds_;
}

void Admission::Ticket::AtLeast(double bytes) {
  absl::MutexLock lock(&admission_->mu_);
  if (bytes <= bytes_) return;
  (bulk_ ? admission_->bulk_bytes_ : admission_->bytes_) += bytes - bytes_;
  bytes_ = bytes;
}

void Admission::Ticket::ComputingIsDone() {
  absl::MutexLock lock(&admission_->mu_);
  Finish();
}

void Admission::Ticket::Finish() {
  if (!std::exchange(computing_, false) || bulk_) return;
  admission_->parts_ -= parts_;
  const auto mine = admission_->clients_.find(client_);
  mine->second.parts -= parts_;
  mine->second.seconds -= seconds_;
  if (--mine->second.requests == 0) admission_->clients_.erase(mine);
}

Admission::Ticket::~Ticket() {
  absl::MutexLock lock(&admission_->mu_);
  Finish();
  if (bulk_) {
    admission_->bulk_bytes_ = std::max(0.0, admission_->bulk_bytes_ - bytes_);
    return;
  }
  // Exactly nothing is left when nobody is, whatever was rounded.
  admission_->bytes_ =
      --admission_->requests_ == 0 ? 0 : admission_->bytes_ - bytes_;
}

double Admission::WaitLocked(const std::string& client, double seconds) const {
  const auto mine = clients_.find(client);
  const double before = mine == clients_.end() ? 0 : mine->second.seconds;
  double wait = before;
  for (const auto& [other, pending] : clients_) {
    if (other != client) wait += std::min(pending.seconds, before + seconds);
  }
  return wait;
}

double Admission::Wait(const std::string& client, double seconds) const {
  absl::MutexLock lock(&mu_);
  return WaitLocked(client, seconds);
}

absl::StatusOr<std::unique_ptr<Admission::Ticket>> Admission::Admit(
    const Estimate& estimate, const RequestContext& context, absl::Time now) {
  const double budget = static_cast<double>(options_.budget_bytes);
  if (estimate.bytes > budget) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the request may take ", static_cast<int64_t>(estimate.bytes),
        " bytes; the server gives all requests together ",
        options_.budget_bytes,
        ": ask for fewer prompts, positions or latents at a time"));
  }
  absl::MutexLock lock(&mu_);
  if (context.bulk)
    return absl::WrapUnique(new Ticket(this, context, estimate));
  const double wait = WaitLocked(context.client, estimate.seconds);
  if (bytes_ + estimate.bytes > budget) {
    return Full(
        absl::StrCat("requests in flight may take ",
                     static_cast<int64_t>(bytes_), " bytes and this one ",
                     static_cast<int64_t>(estimate.bytes),
                     "; the server gives them ", options_.budget_bytes,
                     " together: come again"),
        wait);
  }
  const int64_t parts = Missing(estimate);
  const auto mine = clients_.find(context.client);
  const int64_t own = mine == clients_.end() ? 0 : mine->second.parts;
  if (parts > 0 && (parts_ + parts > options_.max_parts ||
                    own + parts > options_.max_parts_per_client)) {
    return Full(
        absl::StrCat(parts_, " prompts wait, ", own,
                     " of them this client's, and this request has ", parts,
                     "; the server takes ", options_.max_parts, " and ",
                     options_.max_parts_per_client, " of one client"),
        wait);
  }
  const double left = absl::ToDoubleSeconds(context.deadline - now);
  if (estimate.measured && kCertain * estimate.seconds > left) {
    return absl::DeadlineExceededError(absl::StrCat(
        "the request takes about ", Milliseconds(estimate.seconds),
        " on the device; its deadline is in ", Milliseconds(left)));
  }
  return absl::WrapUnique(new Ticket(this, context, estimate));
}

int64_t Admission::bytes_in_flight() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(bytes_ + bulk_bytes_);
}

}  // namespace cupola::engine
