#include "server/engine/memory_ledger.h"

#include <utility>

namespace cupola::engine {

MemoryLedger::Charge::Charge(std::shared_ptr<MemoryLedger> ledger,
                             std::string device, int64_t bytes)
    : ledger_(std::move(ledger)), device_(std::move(device)), bytes_(bytes) {}

MemoryLedger::Charge::~Charge() {
  absl::MutexLock lock(&ledger_->mu_);
  Use& use = ledger_->uses_[device_];
  use.bytes -= bytes_;
  if (leaving_) use.leaving -= bytes_;
  ledger_->freed_ = true;
}

void MemoryLedger::Charge::Resize(int64_t bytes) {
  absl::MutexLock lock(&ledger_->mu_);
  Use& use = ledger_->uses_[device_];
  use.bytes += bytes - bytes_;
  if (leaving_) use.leaving += bytes - bytes_;
  bytes_ = bytes;
  ledger_->woken_ = true;
}

void MemoryLedger::Charge::Leave() {
  absl::MutexLock lock(&ledger_->mu_);
  if (std::exchange(leaving_, true)) return;
  ledger_->uses_[device_].leaving += bytes_;
}

int64_t MemoryLedger::Charge::bytes() const {
  absl::MutexLock lock(&ledger_->mu_);
  return bytes_;
}

std::shared_ptr<MemoryLedger::Charge> MemoryLedger::Take(
    const std::string& device, int64_t bytes) {
  return TakeWithin(device, bytes, /*budget=*/0);
}

std::shared_ptr<MemoryLedger::Charge> MemoryLedger::TakeWithin(
    const std::string& device, int64_t bytes, int64_t budget) {
  absl::MutexLock lock(&mu_);
  Use& use = uses_[device];
  if (budget > 0 && use.bytes + bytes > budget) return nullptr;
  use.bytes += bytes;
  return std::make_shared<Charge>(shared_from_this(), device, bytes);
}

MemoryLedger::Use MemoryLedger::Of(const std::string& device) const {
  absl::MutexLock lock(&mu_);
  const auto found = uses_.find(device);
  return found == uses_.end() ? Use{} : found->second;
}

bool MemoryLedger::AwaitFreed(absl::Duration timeout) {
  const auto changed = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return freed_ || woken_;
  };
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&changed), timeout);
  woken_ = false;
  return std::exchange(freed_, false);
}

void MemoryLedger::Wake() {
  absl::MutexLock lock(&mu_);
  woken_ = true;
}

}  // namespace cupola::engine
