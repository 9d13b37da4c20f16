#ifndef CUPOLA_SERVER_SERVICE_ADMIN_SERVICE_H_
#define CUPOLA_SERVER_SERVICE_ADMIN_SERVICE_H_

#include "cupola/v1/admin.grpc.pb.h"
#include "server/service/environment.h"

namespace cupola::service {

// The methods of cupola.v1.Admin with raw messages (see wire.h).
using RawAdmin = v1::Admin::WithRawCallbackMethod_GetServerInfo<
    v1::Admin::WithRawCallbackMethod_GetCacheStatistics<
        v1::Admin::WithRawCallbackMethod_ClearCache<v1::Admin::Service>>>;

// cupola.v1.Admin: what the server is and does, and its cache. Everything runs
// on the environment's executor, since the cache reads its disk.
class AdminService final : public RawAdmin {
 public:
  explicit AdminService(const Environment& environment)
      : environment_(environment) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetCacheStatistics(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ClearCache(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;

 private:
  const Environment environment_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ADMIN_SERVICE_H_
