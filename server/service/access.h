#ifndef CUPOLA_SERVER_SERVICE_ACCESS_H_
#define CUPOLA_SERVER_SERVICE_ACCESS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/files/watched_files.h"
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
  bool named = false;  // by a token
  // Whose quotas count: the client's, but one for all addresses of an IPv6
  // network of 64 bits, as anybody there has them all.
  std::string account;
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
  using Tokens = files::WatchedFiles<std::vector<Token>>;
  explicit Access(AccessOptions options) : options_(std::move(options)) {}

  const AccessOptions options_;
  Quotas quotas_;
  std::shared_ptr<Tokens> tokens_;  // null: everybody may everything
};

// "ipv4:192.0.2.1:5000" -> "192.0.2.1"; "ipv6:%5B::1%5D:5000" -> "[::1]"; other
// forms stay as they are.
std::string AddressOfPeer(absl::string_view peer);

// The same of an address alone, as HTTP has it: "::1" -> "[::1]";
// "::ffff:192.0.2.1" -> "192.0.2.1".
std::string AddressOfText(absl::string_view address);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ACCESS_H_
