#ifndef CUPOLA_SERVER_HTTP_ORIGIN_POLICY_H_
#define CUPOLA_SERVER_HTTP_ORIGIN_POLICY_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace cupola::http {

// Whom browsers may bring here. A page of anywhere can make a visitor's browser
// ask servers that only the visitor can reach; the browser then tells, in Host
// and Origin, under what name it found the server and whose page asks.
class OriginPolicy {
 public:
  // `hosts`: names this server has. `origins`: "https://lab.example" or
  // "http://localhost:3000", pages of other servers that may ask this one.
  OriginPolicy(std::vector<std::string> hosts,
               std::vector<std::string> origins);

  // Of a Host header. PERMISSION_DENIED: a name that is none of this server's,
  // which is how a page elsewhere looks whose name was made to lead here (DNS
  // rebinding). Addresses and localhost cannot be such names.
  absl::Status CheckHost(absl::string_view host) const;

  // Of an Origin header; `host` is that request's Host, which CheckHost has
  // passed: pages of that name are the server's own, with https where a proxy
  // encrypts. PERMISSION_DENIED: neither that nor a listed one.
  absl::Status CheckOrigin(absl::string_view origin,
                           absl::string_view host) const;

  // Whether pages of this origin, which is not the server's own, may read
  // answers.
  bool IsListed(absl::string_view origin) const;

 private:
  const std::vector<std::string> hosts_, origins_;
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_ORIGIN_POLICY_H_
