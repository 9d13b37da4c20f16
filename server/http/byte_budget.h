#ifndef CUPOLA_SERVER_HTTP_BYTE_BUDGET_H_
#define CUPOLA_SERVER_HTTP_BYTE_BUDGET_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace cupola::http {

// The memory that all questions over HTTP may take together. Thread-safe.
class ByteBudget {
 public:
  explicit ByteBudget(int64_t bytes) : bytes_(bytes) {}

  // What one question takes: at first nothing, at its end nothing again. Used
  // from one thread at a time; the budget outlives it.
  class Share {
   public:
    explicit Share(ByteBudget* budget) : budget_(budget) {}
    ~Share();
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    // From now on the question takes so many bytes. RESOURCE_EXHAUSTED, and the
    // share stays as it was: there are not as many, with both numbers; where
    // others only have to end, with a retry delay (see RetryMilliseconds). Less
    // than before is always fine.
    absl::Status Hold(int64_t bytes);
    int64_t held() const { return held_; }

   private:
    ByteBudget* const budget_;
    int64_t held_ = 0;
  };

 private:
  const int64_t bytes_;
  absl::Mutex mu_;
  int64_t taken_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_BYTE_BUDGET_H_
