#ifndef CUPOLA_SERVER_SERVICE_TOKEN_FILE_H_
#define CUPOLA_SERVER_SERVICE_TOKEN_FILE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/service/quotas.h"
#include "server/service/roles.h"

namespace cupola::service {

using TokenHash = std::array<uint8_t, 32>;

// A bearer token as the server knows it: never itself, only its SHA-256.
struct Token {
  std::string name;  // of its holder; stands in logs
  Role role = Role::kRead;
  TokenHash hash{};
  absl::Time expires = absl::InfiniteFuture();
  Limits limits;
};

// The longest token that is looked at.
inline constexpr size_t kMaxTokenBytes = 512;

TokenHash HashToken(absl::string_view token);

// Reads a token file: one token a line, fields separated by blanks, `#` starts
// a comment.
//
//   NAME ROLE SHA256 [expires=2027-01-31] [requests_per_minute=N]
//                    [bytes_per_minute=SIZE] [concurrent=N]
//
// NAME is 1 to 64 of A-Z a-z 0-9 . _ -; ROLE is read or admin; SHA256 is the
// token's, 64 hexadecimal digits; a token ends at the start of the day that
// `expires` names, in UTC (or at a time, as in 2027-01-31T12:00:00Z). Limits
// that a line leaves open are `defaults`; 0 is none. SIZE takes K, M and G.
//
// INVALID_ARGUMENT, "PATH:LINE: what": a line that is not so, a name or a token
// that comes twice, or no token at all (a file that is being written is empty
// for a moment, which must not lock everybody out). Hashes are not quoted.
absl::StatusOr<std::vector<Token>> ParseTokens(absl::string_view text,
                                               const std::string& path,
                                               const Limits& defaults);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_TOKEN_FILE_H_
