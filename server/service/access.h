#ifndef CUPOLA_SERVER_SERVICE_ACCESS_H_
#define CUPOLA_SERVER_SERVICE_ACCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/service/quotas.h"
#include "server/service/roles.h"
#include "server/service/token_file.h"

namespace cupola::service {

struct AccessOptions {
  std::string tokens;  // a token file; empty: everybody may everything
  Limits limits;       // of clients whose token says nothing else
};

// Who asks, and what they may.
struct Caller {
  std::string client;  // the token's name, else the address
  Role role = Role::kRead;
  Limits limits;
};

// Who may call what, and how much. The token file is read again when it
// changes (looked at once a second); one that is broken is passed over, with a
// line in the log, and the last good one stays. No text of this names a token.
// Any thread may call.
class Access {
 public:
  // INVALID_ARGUMENT: the token file (see ParseTokens).
  static absl::StatusOr<std::unique_ptr<Access>> Create(AccessOptions options);

  // `authorization` is that header's value, empty where there is none;
  // `address` is the caller's, without port. UNAUTHENTICATED: tokens are asked
  // for, and this is none, or one that has expired. The token is compared by
  // its hash, with all of the file's, in constant time.
  absl::StatusOr<Caller> Identify(absl::string_view authorization,
                                  const std::string& address);

  // Identify, then PERMISSION_DENIED where the method (see RequiredRole) asks
  // for more.
  absl::StatusOr<Caller> Authorize(absl::string_view method,
                                   absl::string_view authorization,
                                   const std::string& address);

  Quotas& quotas() { return quotas_; }

 private:
  using Tokens = std::vector<Token>;
  explicit Access(AccessOptions options) : options_(std::move(options)) {}

  absl::StatusOr<Tokens> Read() const;
  std::shared_ptr<const Tokens> Current(absl::Time now);

  const AccessOptions options_;
  Quotas quotas_;
  absl::Mutex mu_;
  absl::Time next_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::string stamp_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const Tokens> tokens_ ABSL_GUARDED_BY(mu_);
};

// "ipv4:192.0.2.1:5000" -> "192.0.2.1"; "ipv6:%5B::1%5D:5000" -> "[::1]"; other
// forms stay as they are.
std::string AddressOfPeer(absl::string_view peer);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ACCESS_H_
