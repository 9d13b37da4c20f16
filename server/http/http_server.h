#ifndef CUPOLA_SERVER_HTTP_HTTP_SERVER_H_
#define CUPOLA_SERVER_HTTP_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace cupola::http {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 7071;  // 0: any free one
};

// What the pages tell. Called from the HTTP server's threads, at the same time.
struct HttpSources {
  std::function<std::string()> metrics;  // Prometheus' text format
  std::function<bool()> ready;
};

// The operator's port:
//
//   /metrics   for Prometheus
//   /healthz   200 "ok" while the process lives, whatever the device does
//   /readyz    200 "ok" when requests are served, else 503 "not ready"
//
// GET and HEAD only (405); anything else is 404. It waits for nothing in the
// request path: its threads are its own.
class HttpServer {
 public:
  // UNAVAILABLE: the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const HttpOptions& options, HttpSources sources);
  // Ends the connections and joins the threads.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_HTTP_SERVER_H_
