#include "server/service/admin_service.h"

#include <string>
#include <utility>

#include "absl/time/time.h"
#include "server/service/catalog_conversion.h"

namespace cupola::service {
namespace {

// One request whose answer `make()` builds on the executor.
template <typename Request, typename Make>
UnaryCall* Answer(const Environment& environment, const char* method,
                  grpc::CallbackServerContext* context,
                  const grpc::ByteBuffer* request, grpc::ByteBuffer* response,
                  Make make) {
  auto* call = new UnaryCall(MakeScope(environment, method, context), response);
  engine::Executor* executor = environment.executor;
  Receive<Request>(environment, call, request,
                   [executor, call, make = std::move(make)](const Request&) {
                     executor->Run([call, make] { call->Send(make()); });
                   });
  return call;
}

v1::CacheStatistics CacheStatistics(const engine::Engine& engine) {
  return ToProto(engine.CacheStatistics(), engine.CacheDisabledReason());
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetServerInfo(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return Answer<v1::GetServerInfoRequest>(
      environment_, "GetServerInfo", context, request, response, [this] {
        const engine::Engine& engine = *environment_.engine;
        v1::ServerInfo info;
        info.set_version(environment_.version);
        info.set_torch_version(environment_.torch_version);
        for (const std::string& device : engine.Devices()) {
          info.add_devices(device);
        }
        info.set_uptime_seconds(
            absl::ToDoubleSeconds(environment_.metrics->Uptime()));
        info.set_requests(environment_.metrics->requests());
        const engine::QueueDepths depths = engine.QueueDepth();
        info.set_queue_depth(depths.interactive + depths.bulk);
        info.set_max_message_bytes(kMaxMessageBytes);
        info.set_max_tokens_per_request(
            engine.options().max_tokens_per_request);
        return info;
      });
}

grpc::ServerUnaryReactor* AdminService::GetCacheStatistics(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return Answer<v1::GetCacheStatisticsRequest>(
      environment_, "GetCacheStatistics", context, request, response,
      [engine = environment_.engine] { return CacheStatistics(*engine); });
}

grpc::ServerUnaryReactor* AdminService::ClearCache(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return Answer<v1::ClearCacheRequest>(environment_, "ClearCache", context,
                                       request, response,
                                       [engine = environment_.engine] {
                                         engine->ClearCache();
                                         return CacheStatistics(*engine);
                                       });
}

}  // namespace cupola::service
