#ifndef CUPOLA_SERVER_SERVICE_STORES_SERVICE_H_
#define CUPOLA_SERVER_SERVICE_STORES_SERVICE_H_

#include "cupola/v1/stores.grpc.pb.h"
#include "server/service/environment.h"

namespace cupola::service {

// The methods of cupola.v1.Stores with raw messages (see wire.h).
using RawStores = v1::Stores::WithRawCallbackMethod_Store<
    v1::Stores::WithRawCallbackMethod_List<
        v1::Stores::WithRawCallbackMethod_Read<
            v1::Stores::WithRawCallbackMethod_Delete<v1::Stores::Service>>>>;

// cupola.v1.Stores: hands everything to the engine's stores of activations.
class StoresService final : public RawStores {
 public:
  explicit StoresService(const Environment& environment)
      : environment_(environment) {}

  grpc::ServerUnaryReactor* Store(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Read(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;

 private:
  const Environment environment_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_STORES_SERVICE_H_
