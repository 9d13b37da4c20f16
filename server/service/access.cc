#include "server/service/access.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "openssl/crypto.h"
#include "server/service/log.h"
#include "server/tls/tls_files.h"

namespace cupola::service {
namespace {

constexpr absl::Duration kLookEvery = absl::Seconds(1);
constexpr absl::string_view kScheme = "Bearer ";

}  // namespace

absl::StatusOr<std::unique_ptr<Access>> Access::Create(AccessOptions options) {
  std::unique_ptr<Access> access(new Access(std::move(options)));
  if (access->options_.tokens.empty()) return access;
  absl::MutexLock lock(&access->mu_);
  access->stamp_ = tls::FileStamp(access->options_.tokens);
  absl::StatusOr<Tokens> tokens = access->Read();
  if (!tokens.ok()) return tokens.status();
  access->tokens_ = std::make_shared<const Tokens>(*std::move(tokens));
  return access;
}

absl::StatusOr<Access::Tokens> Access::Read() const {
  const absl::StatusOr<std::string> text = tls::ReadSmallFile(options_.tokens);
  if (!text.ok()) return text.status();
  return ParseTokens(*text, options_.tokens, options_.limits);
}

std::shared_ptr<const Access::Tokens> Access::Current(absl::Time now) {
  absl::MutexLock lock(&mu_);
  if (now < next_look_) return tokens_;
  next_look_ = now + kLookEvery;
  std::string stamp = tls::FileStamp(options_.tokens);
  if (stamp == stamp_) return tokens_;
  stamp_ = std::move(stamp);
  absl::StatusOr<Tokens> tokens = Read();
  if (tokens.ok()) {
    LogInfo("tokens read", {{"tokens", tokens->size()}});
    tokens_ = std::make_shared<const Tokens>(*std::move(tokens));
  } else {
    LogWarning("tokens kept, the new file is broken",
               {{"reason", std::string(tokens.status().message())}});
  }
  return tokens_;
}

absl::StatusOr<Caller> Access::Identify(absl::string_view authorization,
                                        const std::string& address) {
  if (options_.tokens.empty()) {
    return Caller{address, Role::kAdmin, options_.limits};
  }
  const absl::Time now = absl::Now();
  const std::shared_ptr<const Tokens> tokens = Current(now);
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
  return Caller{found->name, found->role, found->limits};
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

}  // namespace cupola::service
