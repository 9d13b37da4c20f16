#include "server/engine/byte_quota.h"

#include "absl/strings/str_cat.h"

namespace cupola::engine {
absl::Status ByteQuota::Share::Grow(int64_t more) {
  const Options& options = quota_->options_;
  absl::MutexLock lock(&quota_->mu_);
  int64_t& taken = quota_->taken_;
  if (more <= options.max - taken) {
    taken += more;
    bytes_ += more;
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat(options.what, " take ", taken, " bytes, and ", more,
                   " more are asked for; accepted: ", options.max,
                   " together (", options.advice, ")"));
}

void ByteQuota::Add(int64_t bytes) {
  absl::MutexLock lock(&mu_);
  taken_ += bytes;
}

int64_t ByteQuota::taken() const {
  absl::MutexLock lock(&mu_);
  return taken_;
}

}  // namespace cupola::engine
