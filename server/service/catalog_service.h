#ifndef CUPOLA_SERVER_SERVICE_CATALOG_SERVICE_H_
#define CUPOLA_SERVER_SERVICE_CATALOG_SERVICE_H_

#include "cupola/v1/catalog.grpc.pb.h"
#include "server/service/environment.h"

namespace cupola::service {

// The methods of cupola.v1.Catalog with raw messages (see wire.h).
using RawCatalog = v1::Catalog::WithRawCallbackMethod_List<
    v1::Catalog::WithRawCallbackMethod_Describe<
        v1::Catalog::WithRawCallbackMethod_Load<
            v1::Catalog::WithRawCallbackMethod_Unload<
                v1::Catalog::WithRawCallbackMethod_SelfCheck<
                    v1::Catalog::WithRawCallbackMethod_Register<
                        v1::Catalog::WithRawCallbackMethod_Unregister<
                            v1::Catalog::WithRawCallbackMethod_UploadDictionary<
                                v1::Catalog::Service>>>>>>>>;

// cupola.v1.Catalog. What reads the engine's state runs on the environment's
// executor; loads and self-checks end on the engine's threads.
class CatalogService final : public RawCatalog {
 public:
  explicit CatalogService(const Environment& environment)
      : environment_(environment) {}

  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Load(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Unload(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* SelfCheck(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Register(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Unregister(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* UploadDictionary(
      grpc::CallbackServerContext* context,
      grpc::ByteBuffer* response) override;

 private:
  const Environment environment_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_CATALOG_SERVICE_H_
