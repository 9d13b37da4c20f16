#include "server/http/byte_budget.h"

#include "absl/strings/str_cat.h"
#include "server/http/http_answer.h"

namespace cupola::http {

ByteBudget::Share::~Share() {
  absl::MutexLock lock(&budget_->mu_);
  budget_->taken_ -= held_;
}

absl::Status ByteBudget::Share::Hold(int64_t bytes) {
  if (bytes > budget_->bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the question takes ", bytes,
        " bytes of memory over HTTP; accepted: ", budget_->bytes_));
  }
  absl::MutexLock lock(&budget_->mu_);
  const int64_t others = budget_->taken_ - held_;
  if (bytes > held_ && bytes > budget_->bytes_ - others) {
    return Busy(absl::StrCat("the question takes ", bytes,
                             " bytes of memory, others over HTTP ", others,
                             "; accepted at a time: ", budget_->bytes_));
  }
  budget_->taken_ = others + bytes;
  held_ = bytes;
  return absl::OkStatus();
}

}  // namespace cupola::http
