#ifndef CUPOLA_SERVER_HTTP_PAGES_H_
#define CUPOLA_SERVER_HTTP_PAGES_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "server/http/connection.h"
#include "server/http/http_server.h"
#include "server/http/origin_policy.h"

namespace cupola::http {

// What the HTTP server answers (see HttpServer). Any thread may call.
class Pages {
 public:
  Pages(const HttpOptions& options, HttpSources sources);

  // Answers the request; returns the status code.
  int Answer(Connection* connection);

 private:
  // Not OK: Host, Origin or token.
  absl::Status Check(const Connection& connection) const;
  // For pages of listed origins; empty otherwise.
  std::string CorsHeaders(const Connection& connection) const;
  HttpAnswer Get(const Connection& connection) const;
  HttpAnswer Post(Connection* connection);
  HttpAnswer Ask(Connection* connection, absl::string_view service,
                 absl::string_view method);

  const HttpSources sources_;
  const OriginPolicy policy_;
  const std::string openapi_;
  std::atomic<int> asking_{0};
  std::atomic<int64_t> body_bytes_{0};
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_PAGES_H_
