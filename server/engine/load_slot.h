#ifndef CUPOLA_SERVER_ENGINE_LOAD_SLOT_H_
#define CUPOLA_SERVER_ENGINE_LOAD_SLOT_H_

#include <functional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace cupola::engine {

// One thing that is loaded once however many ask for it. A state machine
// without threads or locks: the owner guards it and runs what it returns.
//
//   empty --Join--> loading --Settle--> ready or failed --Reset--> empty
template <typename T>
class LoadSlot {
 public:
  using Done = std::function<void(absl::StatusOr<T>)>;

  bool loading() const { return loading_; }
  bool ready() const { return !loading_ && settled_ && value_.ok(); }
  bool failed() const { return !loading_ && settled_ && !value_.ok(); }
  const T& value() const { return *value_; }  // REQUIRES: ready()
  absl::Status status() const {
    return settled_ ? value_.status() : absl::OkStatus();
  }

  // REQUIRES: neither ready nor failed. Adds a waiter; true: the caller is the
  // first and must start the load, which ends with Settle.
  bool Join(Done done) {
    waiters_.push_back(std::move(done));
    return !std::exchange(loading_, true);
  }
  // Ends a load. The owner calls the returned waiters, outside its lock.
  std::vector<Done> Settle(absl::StatusOr<T> value) {
    value_ = std::move(value);
    settled_ = true;
    loading_ = false;
    return std::exchange(waiters_, {});
  }
  // Forgets a value or a failure. REQUIRES: not loading.
  void Reset() {
    value_ = absl::UnknownError("empty");
    settled_ = false;
  }

 private:
  absl::StatusOr<T> value_ = absl::UnknownError("empty");
  bool settled_ = false, loading_ = false;
  std::vector<Done> waiters_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_LOAD_SLOT_H_
