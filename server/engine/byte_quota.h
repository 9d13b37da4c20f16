#ifndef CUPOLA_SERVER_ENGINE_BYTE_QUOTA_H_
#define CUPOLA_SERVER_ENGINE_BYTE_QUOTA_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace cupola::engine {

// So many bytes of a disk that many share: taken before they are used. Any
// thread may call; its lock is held for moments and may be taken under any
// other.
class ByteQuota {
 public:
  struct Options {
    int64_t max = 0;
    std::string what;    // takes them, for refusals: "the states of jobs"
    std::string advice;  // against a refusal: "delete jobs"
  };
  explicit ByteQuota(Options options) : options_(std::move(options)) {}

  // Bytes that are given back with it. Used by one thread at a time.
  class Share {
   public:
    explicit Share(std::shared_ptr<ByteQuota> quota)
        : quota_(std::move(quota)) {}
    Share(Share&& other) noexcept
        : quota_(std::move(other.quota_)),
          bytes_(std::exchange(other.bytes_, 0)) {}
    Share& operator=(Share&&) = delete;
    ~Share() {
      if (bytes_ != 0) quota_->Add(-bytes_);
    }

    // RESOURCE_EXHAUSTED, with both numbers, where the quota has not as many
    // more; nothing has changed then.
    absl::Status Grow(int64_t more);
    int64_t bytes() const { return bytes_; }
    // The bytes stay taken, until somebody calls Add(-bytes).
    void Keep() { bytes_ = 0; }

   private:
    std::shared_ptr<ByteQuota> quota_;
    int64_t bytes_ = 0;
  };

  // What is there whether it fits or not; negative: what has gone.
  void Add(int64_t bytes);
  int64_t taken() const;
  int64_t max() const { return options_.max; }

 private:
  const Options options_;
  mutable absl::Mutex mu_;
  int64_t taken_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_BYTE_QUOTA_H_
