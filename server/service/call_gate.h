#ifndef CUPOLA_SERVER_SERVICE_CALL_GATE_H_
#define CUPOLA_SERVER_SERVICE_CALL_GATE_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace cupola::service {

// What every call is told that the server's end keeps from an answer.
absl::Status ShuttingDown();  // UNAVAILABLE

// The door that calls come in by. It makes an end orderly: Shut refuses new
// calls, AwaitEmpty lets those inside finish, Clear asks the others to leave.
// gRPC's own shutdown cannot do this: it ends calls that arrive meanwhile, and
// those that it breaks off, as CANCELLED, which clients take for their own
// doing and do not try again. Thread-safe.
class CallGate {
 public:
  // Whether the call is let in; then it calls Leave when the transport has sent
  // all of it.
  bool Enter();
  void Leave();

  void Shut();
  bool shut() const;
  // Returns when nobody is inside, at the latest at `deadline`.
  void AwaitEmpty(absl::Time deadline);
  // Returns when no call has come for `spell`, at the latest at `deadline`:
  // everybody who was about to call knows that the gate is shut.
  void AwaitQuiet(absl::Duration spell, absl::Time deadline);
  // From now on calls inside end as ShuttingDown at their next step.
  void Clear() { clearing_ = true; }
  bool clearing() const { return clearing_; }

 private:
  std::atomic<bool> clearing_{false};
  mutable absl::Mutex mu_;
  bool shut_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time last_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  int64_t inside_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_CALL_GATE_H_
