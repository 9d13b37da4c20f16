#ifndef CUPOLA_SERVER_HTTP_PAGES_H_
#define CUPOLA_SERVER_HTTP_PAGES_H_

#include <atomic>
#include <string>

#include "server/http/byte_budget.h"
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
  HttpAnswer Health(const Connection& connection) const;
  // What a page may ask of another origin's.
  HttpAnswer Options(const Connection& connection) const;
  int Read(Connection* connection);
  int Ask(Connection* connection);
  // Without the answer's sending.
  HttpAnswer AskApi(Connection* connection, ByteBudget::Share* share);

  const HttpSources sources_;
  const OriginPolicy policy_;
  const std::string openapi_;
  ByteBudget budget_;
  std::atomic<int> asking_{0}, reading_{0};
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_PAGES_H_
