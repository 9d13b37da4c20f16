#ifndef CUPOLA_SERVER_HTTP_HTTP_SERVER_H_
#define CUPOLA_SERVER_HTTP_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/http/json_api.h"

namespace cupola::http {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 7071;  // 0: any free one
  // See OriginPolicy; `host` is one of the hosts.
  std::vector<std::string> hosts, origins;
};

// What the pages tell. Called from the HTTP server's threads, at the same time.
struct HttpSources {
  std::function<std::string()> metrics;  // Prometheus' text format
  std::function<bool()> ready;
  // Whether who asks may; gets the Authorization header and the address. Null:
  // everybody may.
  std::function<absl::Status(const std::string&, const std::string&)> admit;
  std::unique_ptr<JsonApi> api;  // null: no /v1
};

// The port for operators, browsers and scripts:
//
//   GET  /healthz             200 "ok" while the process lives
//   GET  /readyz              200 "ok" when requests are served, else 503
//   GET  /metrics             for Prometheus
//   GET  /v1/openapi.json     describes what follows
//   POST /v1/SERVICE/METHOD   a request as JSON; its answer as JSON or, with
//                             Accept: application/octet-stream, with raw
//                             tensors (see ToFrames)
//
// The first two are for everybody; the others go by `admit`, by Host and by
// Origin (see OriginPolicy). A POST has the content type application/json, at
// most 32 MiB, and perhaps `Cupola-Timeout: SECONDS` (60). Errors are those of
// ErrorAnswer.
//
// Its threads are its own and wait for answers; some are kept back, so that a
// busy /v1 never keeps /healthz waiting: 429 beyond 32 questions or 256 MiB of
// bodies at a time. CivetWeb does not tell of clients that go away: a question
// of theirs runs until its timeout. Plain HTTP only: CivetWeb 1.15's TLS
// wants functions that OpenSSL 3 no longer has (SSL_get_peer_certificate), and
// ends the process over them; so encryption is a proxy's task.
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
