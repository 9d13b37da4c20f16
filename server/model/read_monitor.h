#ifndef CUPOLA_SERVER_MODEL_READ_MONITOR_H_
#define CUPOLA_SERVER_MODEL_READ_MONITOR_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"

namespace cupola::model {

// Watches the reading of tensors and ends it: every reader of safetensors
// reports its pieces to the monitor of its thread, where there is one, and
// fails with what that says. Any thread may call.
class ReadMonitor {
 public:
  // Every later report is UNAVAILABLE, and with it the read.
  void Stop() { stopped_ = true; }
  // All that was ever read.
  int64_t bytes() const { return bytes_; }

  // For as long as this lives, what its thread reads is reported.
  class Scope {
   public:
    explicit Scope(ReadMonitor* monitor) : before_(current_) {
      current_ = monitor;
    }
    ~Scope() { current_ = before_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    ReadMonitor* const before_;
  };

  static absl::Status Report(int64_t bytes) {
    if (current_ == nullptr) return absl::OkStatus();
    current_->bytes_ += bytes;
    return current_->stopped_
               ? absl::UnavailableError("the server is shutting down")
               : absl::OkStatus();
  }

 private:
  static inline thread_local ReadMonitor* current_ = nullptr;
  std::atomic<int64_t> bytes_{0};
  std::atomic<bool> stopped_{false};
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_READ_MONITOR_H_
