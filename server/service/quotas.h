#ifndef CUPOLA_SERVER_SERVICE_QUOTAS_H_
#define CUPOLA_SERVER_SERVICE_QUOTAS_H_

#include <cstdint>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace cupola::service {

// What one client may use; 0: as much as there is.
struct Limits {
  int64_t requests_per_minute = 0;
  int64_t bytes_per_minute = 0;  // requests and answers together
  int64_t concurrent = 0;        // requests at a time

  bool any() const {
    return requests_per_minute > 0 || bytes_per_minute > 0 || concurrent > 0;
  }
};

// Counts what clients use and refuses what is above their limits. Rates are
// buckets that hold a minute's worth and fill evenly, so a client that has been
// quiet may use a minute's worth at once. The bytes of an answer are known when
// it is sent: they may make a debt, which the next requests wait for.
//
// Clients without limits are not counted. At most 65536 clients are kept: those
// whose buckets are full again are forgotten when there are more, once a
// second. Time is passed in.
// Thread-safe.
class Quotas {
 public:
  // Lets a request in, which then must Leave. RESOURCE_EXHAUSTED: with the
  // limit, and with a retry delay (see kRetryDelayPayload).
  absl::Status Enter(const std::string& client, const Limits& limits,
                     absl::Time now);
  void Leave(const std::string& client);
  // Of a request that is inside.
  void CountBytes(const std::string& client, int64_t bytes);

 private:
  struct Use {
    Limits limits;
    double requests = 0, bytes = 0;  // what is left in the buckets
    absl::Time filled;               // when they were last filled up
    int64_t inside = 0;
  };
  static void Fill(Use* use, absl::Time now);
  // A limit that is new starts with a full bucket.
  static void SetLimits(const Limits& limits, Use* use);
  static bool IsIdle(const Use& use);
  void Forget(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  absl::Time next_forget_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::unordered_map<std::string, Use> uses_ ABSL_GUARDED_BY(mu_);
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_QUOTAS_H_
