#include "server/service/access.h"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "openssl/crypto.h"
#include "server/files/small_file.h"
#include "server/service/log.h"

namespace cupola::service {
namespace {

constexpr absl::string_view kScheme = "Bearer ";

void ReportReading(const absl::Status& status) {
  if (status.ok()) {
    LogInfo("tokens read", {});
  } else {
    LogWarning("tokens kept, the new file is broken",
               {{"reason", std::string(status.message())}});
  }
}

// The network of 64 bits that an IPv6 address in brackets is of.
std::string AccountOf(const std::string& address) {
  in6_addr bytes;
  if (address.size() < 2 || address.front() != '[' ||
      ::inet_pton(AF_INET6, address.substr(1, address.size() - 2).c_str(),
                  &bytes) != 1) {
    return address;
  }
  std::fill(bytes.s6_addr + 8, bytes.s6_addr + 16, 0);
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET6, &bytes, text, sizeof text);
  return absl::StrCat("[", text, "]/64");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Access>> Access::Create(AccessOptions options) {
  std::unique_ptr<Access> access(new Access(std::move(options)));
  const std::string& path = access->options_.tokens;
  if (path.empty()) return access;
  auto tokens = Tokens::Load(
      {path},
      [&path, &limits = access->options_.limits]()
          -> absl::StatusOr<std::vector<Token>> {
        const absl::StatusOr<std::string> text = files::ReadSmallFile(path);
        if (!text.ok()) return text.status();
        return ParseTokens(*text, path, limits);
      },
      &ReportReading);
  if (!tokens.ok()) return tokens.status();
  access->tokens_ = *std::move(tokens);
  return access;
}

absl::StatusOr<Caller> Access::Identify(absl::string_view authorization,
                                        const std::string& address) {
  if (tokens_ == nullptr) {
    return Caller{address, false, AccountOf(address), Role::kAdmin,
                  options_.limits};
  }
  const absl::Time now = absl::Now();
  const std::shared_ptr<const std::vector<Token>> tokens = tokens_->Current();
  if (authorization.empty()) {
    return absl::UnauthenticatedError(
        "this server asks for a token: authorization: Bearer TOKEN");
  }
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) {
    return absl::UnauthenticatedError(
        "authorization has another scheme; accepted: Bearer TOKEN");
  }
  const absl::string_view token =
      absl::StripAsciiWhitespace(authorization.substr(kScheme.size()));
  if (token.size() > kMaxTokenBytes) {
    return absl::UnauthenticatedError(
        absl::StrCat("the token has ", token.size(),
                     " bytes; accepted: at most ", kMaxTokenBytes));
  }
  const TokenHash hash = HashToken(token);
  const Token* found = nullptr;
  for (const Token& candidate : *tokens) {
    if (CRYPTO_memcmp(hash.data(), candidate.hash.data(), hash.size()) == 0) {
      found = &candidate;  // and on: the time tells nothing of the place
    }
  }
  if (found == nullptr) {
    return absl::UnauthenticatedError("the token is not one of this server's");
  }
  if (now >= found->expires) {
    return absl::UnauthenticatedError(
        absl::StrCat("the token \"", found->name, "\" has expired"));
  }
  return Caller{found->name, true, found->name, found->role, found->limits};
}

absl::StatusOr<Caller> Access::Authorize(absl::string_view method,
                                         absl::string_view authorization,
                                         const std::string& address) {
  absl::StatusOr<Caller> caller = Identify(authorization, address);
  if (caller.ok() && caller->role == Role::kRead &&
      RequiredRole(method) == Role::kAdmin) {
    return absl::PermissionDeniedError(
        absl::StrCat(method, " asks for the role admin; the token \"",
                     caller->client, "\" has the role read"));
  }
  return caller;
}

std::string AddressOfPeer(absl::string_view peer) {
  const size_t colon = peer.rfind(':');
  if ((!absl::StartsWith(peer, "ipv4:") && !absl::StartsWith(peer, "ipv6:")) ||
      colon < 5) {
    return std::string(peer);
  }
  return absl::StrReplaceAll(peer.substr(5, colon - 5),
                             {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
}

std::string AddressOfText(absl::string_view address) {
  constexpr absl::string_view kMapped = "::ffff:";
  if (absl::StartsWith(address, kMapped) && absl::StrContains(address, ".")) {
    return std::string(address.substr(kMapped.size()));
  }
  return absl::StrContains(address, ":") ? absl::StrCat("[", address, "]")
                                         : std::string(address);
}

}  // namespace cupola::service
