#include "server/service/server.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/resource_quota.h"
#include "server/engine/executor.h"
#include "server/service/admin_service.h"
#include "server/service/analysis_service.h"
#include "server/service/catalog_service.h"
#include "server/service/datasets_service.h"
#include "server/service/foreign_calls.h"
#include "server/service/jobs_service.h"
#include "server/service/stores_service.h"
#include "server/service/tls_credentials.h"

namespace cupola::service {
namespace {

constexpr int kTransportThreads = 2;
// For the transport to send the last statuses.
constexpr absl::Duration kLastWords = absl::Seconds(1);
// Calls that arrive while gRPC shuts down end as CANCELLED, whatever we do: it
// starts when none has come for so long, which is soon, as all are refused.
constexpr absl::Duration kQuiet = absl::Milliseconds(100);
constexpr int kMaxMetadataBytes = 16 << 10;
// Notebooks behind a NAT ping once a minute; gRPC's own limit of five minutes
// would end their connections.
constexpr int kMinPingMilliseconds = 20'000;
// Of one connection; more wait at the client.
constexpr int kMaxConcurrentStreams = 1024;
// What the transport may hold at a time, of all connections; it then takes
// nothing new. Threads: of reflection alone, what else there is needs none.
constexpr size_t kTransportBytes = size_t{2} << 30;
constexpr int kMaxTransportThreads = 64;

// The names a health check may ask for; "" is the whole server.
constexpr const char* kHealthNames[] = {"",
                                        "cupola.v1.Analysis",
                                        "cupola.v1.Catalog",
                                        "cupola.v1.Admin",
                                        "cupola.v1.Jobs",
                                        "cupola.v1.Datasets"};

// Linking gRPC's reflection is enough to switch it on, in every server of the
// process; this switches it off in one.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    using grpc::reflection::ProtoServerReflectionPlugin;
    const auto is_reflection = [](const auto& plugin) {
      return dynamic_cast<ProtoServerReflectionPlugin*>(plugin.get()) !=
             nullptr;
    };
    plugins->erase(
        std::remove_if(plugins->begin(), plugins->end(), is_reflection),
        plugins->end());
  }
};

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerOptions& options, engine::Engine* engine, Metrics* metrics)
      : executor_(kTransportThreads),
        credentials_(options.tls == nullptr ? grpc::InsecureServerCredentials()
                                            : TlsCredentials(options.tls)),
        environment_{engine,
                     metrics,
                     &gate_,
                     options.access,
                     &executor_,
                     options.version,
                     options.torch_version,
                     options.registry},
        analysis_(environment_),
        catalog_(environment_),
        admin_(environment_),
        jobs_(environment_),
        datasets_(environment_),
        stores_(environment_) {}

  ~Impl() { Shutdown(); }

  absl::Status Start(const ServerOptions& options) {
    // Both are switches of the process that act on servers built later.
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    if (!options.reflection) {
      builder.SetOption(std::make_unique<WithoutReflection>());
    }
    const std::string address = absl::StrCat(options.host, ":", options.port);
    builder.AddListeningPort(address, credentials_, &port_);
    // A port in use is an error; by default two servers would share it.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
    builder.AddChannelArgument(
        GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
        kMinPingMilliseconds);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                               kMaxConcurrentStreams);
    grpc::ResourceQuota quota("cupola");
    quota.Resize(kTransportBytes).SetMaxThreads(kMaxTransportThreads);
    builder.SetResourceQuota(quota);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    if (options.reflection && options.access != nullptr) {
      std::vector<std::unique_ptr<
          grpc::experimental::ServerInterceptorFactoryInterface>>
          guards;
      guards.push_back(GuardForeignCalls(options.access));
      builder.experimental().SetInterceptorCreators(std::move(guards));
    }
    builder.RegisterService(&analysis_);
    builder.RegisterService(&catalog_);
    builder.RegisterService(&admin_);
    builder.RegisterService(&jobs_);
    builder.RegisterService(&datasets_);
    builder.RegisterService(&stores_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return absl::UnavailableError(absl::StrCat(
          "cannot listen on ", address,
          " (is the port taken, or the address not this machine's?)"));
    }
    SetServing(false);
    return absl::OkStatus();
  }

  int port() const { return port_; }

  std::shared_ptr<grpc::Channel> InProcessChannel() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);  // the server bounds its answers
    return server_->InProcessChannel(arguments);
  }

  void SetServing(bool serving) {
    for (const char* name : kHealthNames) {
      server_->GetHealthCheckService()->SetServingStatus(name, serving);
    }
  }

  void Drain(absl::Time deadline) {
    server_->GetHealthCheckService()->Shutdown();
    gate_.Shut();
    gate_.AwaitEmpty(deadline);
  }

  void Shutdown() {
    if (server_ == nullptr || stopped_) return;
    stopped_ = true;
    gate_.Shut();
    gate_.Clear();
    const absl::Time limit = absl::Now() + kLastWords;
    gate_.AwaitEmpty(limit);
    gate_.AwaitQuiet(kQuiet, limit);
    // At once: to its client a connection that closes is UNAVAILABLE.
    server_->Shutdown(absl::ToChronoTime(absl::Now()));
  }

 private:
  CallGate gate_;
  engine::Executor executor_;
  const std::shared_ptr<grpc::ServerCredentials> credentials_;
  const Environment environment_;
  AnalysisService analysis_;
  CatalogService catalog_;
  AdminService admin_;
  JobsService jobs_;
  DatasetsService datasets_;
  StoresService stores_;
  int port_ = 0;
  bool stopped_ = false;
  std::unique_ptr<grpc::Server> server_;  // first to go
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(
    const ServerOptions& options, engine::Engine* engine, Metrics* metrics) {
  auto impl = std::make_unique<Impl>(options, engine, metrics);
  const absl::Status started = impl->Start(options);
  if (!started.ok()) return started;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::port() const { return impl_->port(); }
std::shared_ptr<grpc::Channel> Server::InProcessChannel() {
  return impl_->InProcessChannel();
}
void Server::SetServing(bool serving) { impl_->SetServing(serving); }
void Server::Drain(absl::Time deadline) { impl_->Drain(deadline); }
void Server::Shutdown() { impl_->Shutdown(); }

}  // namespace cupola::service
