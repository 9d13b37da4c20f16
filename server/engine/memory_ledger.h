#ifndef CUPOLA_SERVER_ENGINE_MEMORY_LEDGER_H_
#define CUPOLA_SERVER_ENGINE_MEMORY_LEDGER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace cupola::engine {

// How many bytes of weights each device holds, to the last reference: what an
// evicted entry's running requests keep still counts. Any thread may call; a
// lock of its own is held for moments, so that it may be called, and its
// charges may end, under any other.
class MemoryLedger : public std::enable_shared_from_this<MemoryLedger> {
 public:
  // Bytes of a device, counted for as long as this lives.
  class Charge {
   public:
    // Of bytes that the ledger has counted: Take makes these.
    Charge(std::shared_ptr<MemoryLedger> ledger, std::string device,
           int64_t bytes);
    ~Charge();
    Charge(const Charge&) = delete;
    Charge& operator=(const Charge&) = delete;

    // Once the bytes are measured, no longer estimated.
    void Resize(int64_t bytes);
    // The catalog has dropped the weights: they are free with their last user.
    void Leave();
    int64_t bytes() const;

   private:
    const std::shared_ptr<MemoryLedger> ledger_;
    const std::string device_;
    int64_t bytes_;         // guarded by the ledger's lock
    bool leaving_ = false;  // the same
  };

  std::shared_ptr<Charge> Take(const std::string& device, int64_t bytes);
  // Null where the device would hold more than `budget` with it; 0: none.
  std::shared_ptr<Charge> TakeWithin(const std::string& device, int64_t bytes,
                                     int64_t budget);

  struct Use {
    int64_t bytes = 0;    // taken
    int64_t leaving = 0;  // of these: free with their last user
  };
  Use Of(const std::string& device) const;

  // Returns when memory has been freed or somebody has called Wake since the
  // last call, or after `timeout`. True: memory has been freed.
  bool AwaitFreed(absl::Duration timeout);
  void Wake();

 private:
  mutable absl::Mutex mu_;
  std::map<std::string, Use> uses_ ABSL_GUARDED_BY(mu_);
  bool freed_ ABSL_GUARDED_BY(mu_) = false;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
};

// `object` under another pointer, whose last copy frees the object and then its
// charge.
template <typename T>
std::shared_ptr<const T> Charged(std::shared_ptr<const T> object,
                                 std::shared_ptr<MemoryLedger::Charge> charge) {
  const T* const raw = object.get();
  return std::shared_ptr<const T>(
      raw, [object = std::move(object),
            charge = std::move(charge)](const T*) mutable {
        object.reset();
        charge.reset();
      });
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_MEMORY_LEDGER_H_
