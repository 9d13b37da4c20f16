#include "server/http/origin_policy.h"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace cupola::http {
namespace {

// A header's text may be anything: what an error quotes is cut.
constexpr size_t kMaxQuoted = 200;

bool IsAddress(const std::string& name) {
  in6_addr unused;
  if (name.size() > 2 && name.front() == '[' && name.back() == ']') {
    return ::inet_pton(AF_INET6, name.substr(1, name.size() - 2).c_str(),
                       &unused) == 1;
  }
  return ::inet_pton(AF_INET, name.c_str(), &unused) == 1;
}

std::string WithoutPort(absl::string_view host) {
  const size_t colon = host.rfind(':');
  const bool port = colon != absl::string_view::npos &&
                    colon + 1 < host.size() &&
                    host.find_first_not_of("0123456789", colon + 1) ==
                        absl::string_view::npos;
  return std::string(port ? host.substr(0, colon) : host);
}

}  // namespace

OriginPolicy::OriginPolicy(std::vector<std::string> hosts,
                           std::vector<std::string> origins)
    : hosts_(std::move(hosts)), origins_(std::move(origins)) {}

absl::Status OriginPolicy::CheckHost(absl::string_view host) const {
  const std::string name = WithoutPort(host);
  if (IsAddress(name) || absl::EqualsIgnoreCase(name, "localhost") ||
      std::any_of(hosts_.begin(), hosts_.end(), [&](const std::string& own) {
        return absl::EqualsIgnoreCase(own, name);
      })) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(absl::StrCat(
      "Host is \"", host.substr(0, kMaxQuoted),
      "\"; accepted: an address, localhost, or a name of --http_hosts"));
}

absl::Status OriginPolicy::CheckOrigin(absl::string_view origin,
                                       absl::string_view host) const {
  if (absl::EqualsIgnoreCase(origin, absl::StrCat("http://", host)) ||
      absl::EqualsIgnoreCase(origin, absl::StrCat("https://", host)) ||
      IsListed(origin)) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      absl::StrCat("Origin is \"", origin.substr(0, kMaxQuoted),
                   "\"; accepted: this server's own, or one of "
                   "--http_origins"));
}

bool OriginPolicy::IsListed(absl::string_view origin) const {
  return std::any_of(origins_.begin(), origins_.end(),
                     [&](const std::string& listed) {
                       return absl::EqualsIgnoreCase(listed, origin);
                     });
}

}  // namespace cupola::http
