#ifndef CUPOLA_SERVER_SERVICE_SERVER_H_
#define CUPOLA_SERVER_SERVICE_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "server/engine/engine.h"
#include "server/service/access.h"
#include "server/service/metrics.h"
#include "server/tls/tls_files.h"

namespace cupola::service {

class Registry;

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 7070;                     // 0: any free one
  std::shared_ptr<tls::TlsFiles> tls;  // null: without TLS
  // Outlives the server; null: everybody may everything.
  Access* access = nullptr;
  bool reflection = false;
  std::string version, torch_version;
  // Entries that come and go while the server runs; null: none do. Outlives the
  // server.
  Registry* registry = nullptr;
};

// The gRPC server: Catalog, Analysis, Admin and Jobs, gRPC health (for the
// whole server and for each of the four), and reflection when asked for. All
// but health goes by `access`.
//
// Health starts as NOT_SERVING: the owner calls SetServing(true) when the
// engine's catalog is ready. Thread-safe.
class Server {
 public:
  // UNAVAILABLE: the address cannot be bound. `engine` and `metrics` outlive
  // the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const ServerOptions& options, engine::Engine* engine, Metrics* metrics);
  ~Server();  // Shutdown
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  // A channel from this process to the server, past the network; its calls are
  // calls like all others. See kForwardedAddress in request_scope.h.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  void SetServing(bool serving);

  // Health turns NOT_SERVING for good and new calls are refused with
  // UNAVAILABLE. Returns when the calls in flight have ended, at the latest at
  // `deadline`.
  void Drain(absl::Time deadline);
  // Ends what Drain has left with UNAVAILABLE, and the transport with it: the
  // engine, which answers calls, is to be drained before.
  void Shutdown();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_SERVER_H_
