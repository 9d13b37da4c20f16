#ifndef CUPOLA_SERVER_HTTP_HTTP_SERVER_H_
#define CUPOLA_SERVER_HTTP_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
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
  std::string why_no_api;        // told to who asks for it
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
// Origin (see OriginPolicy), and pages of listed origins may ask what they may
// (OPTIONS). A POST has the content type application/json, at most 32 MiB, and
// perhaps `Cupola-Timeout: SECONDS` (60). Errors are those of ErrorAnswer.
//
// What it takes is bounded. Beyond 32 questions at a time, 8 other pages, or a
// gibibyte of memory for questions and answers (four times the largest answer,
// where that is more): 429. A header may take 5 s, a body a minute, an answer
// two on its way to the client; then the connection is shut. A question whose
// client goes away is cancelled. Its threads are its own, and as many are kept
// back for /healthz and /readyz that neither a busy /v1 nor a hundred clients
// that send nothing keep them waiting.
//
// Plain HTTP only: CivetWeb 1.15's TLS wants functions that OpenSSL 3 no longer
// has (SSL_get_peer_certificate), and ends the process over them; so encryption
// is a proxy's task.
class HttpServer {
 public:
  // UNAVAILABLE: the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const HttpOptions& options, HttpSources sources);
  // Ends the connections, what they still send with them, and joins the
  // threads.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;

  // Returns when all answers have been sent, at the latest at `deadline`. New
  // requests are answered meanwhile.
  void Drain(absl::Time deadline);

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_HTTP_SERVER_H_
