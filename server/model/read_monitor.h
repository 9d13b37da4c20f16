#ifndef CUPOLA_SERVER_MODEL_READ_MONITOR_H_
#define CUPOLA_SERVER_MODEL_READ_MONITOR_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"

namespace cupola::model {

// Watches the reading of tensors and ends it: every reader of safetensors
// reports its pieces to the scope of its thread, where there is one, and fails
// with what that says. Any thread may call.
class ReadMonitor {
 public:
  // All that was ever read.
  int64_t bytes() const { return bytes_; }

  // For as long as this lives, what its thread reads counts for `monitor`, and
  // is UNAVAILABLE once `ends` is true. Either may be null; both outlive this.
  class Scope {
   public:
    Scope(ReadMonitor* monitor, const std::atomic<bool>* ends)
        : monitor_before_(current_), ends_before_(ends_) {
      current_ = monitor;
      ends_ = ends;
    }
    ~Scope() {
      current_ = monitor_before_;
      ends_ = ends_before_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    ReadMonitor* const monitor_before_;
    const std::atomic<bool>* const ends_before_;
  };

  static absl::Status Report(int64_t bytes) {
    if (current_ != nullptr) current_->bytes_ += bytes;
    return ends_ != nullptr && *ends_
               ? absl::UnavailableError("the server is shutting down")
               : absl::OkStatus();
  }

 private:
  static inline thread_local ReadMonitor* current_ = nullptr;
  static inline thread_local const std::atomic<bool>* ends_ = nullptr;
  std::atomic<int64_t> bytes_{0};
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_READ_MONITOR_H_
