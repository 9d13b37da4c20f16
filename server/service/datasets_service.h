#ifndef CUPOLA_SERVER_SERVICE_DATASETS_SERVICE_H_
#define CUPOLA_SERVER_SERVICE_DATASETS_SERVICE_H_

#include "cupola/v1/datasets.grpc.pb.h"
#include "server/engine/executor.h"
#include "server/service/environment.h"

namespace cupola::service {

// The methods of cupola.v1.Datasets with raw messages (see wire.h).
using RawDatasets = v1::Datasets::WithRawCallbackMethod_Upload<
    v1::Datasets::WithRawCallbackMethod_List<
        v1::Datasets::WithRawCallbackMethod_Get<
            v1::Datasets::WithRawCallbackMethod_Delete<
                v1::Datasets::WithRawCallbackMethod_Tokenize<
                    v1::Datasets::WithRawCallbackMethod_GetRows<
                        v1::Datasets::Service>>>>>>;

// cupola.v1.Datasets. What waits for the disk runs on threads of its own, so
// that an upload is in nobody's way.
class DatasetsService final : public RawDatasets {
 public:
  explicit DatasetsService(const Environment& environment);

  grpc::ServerReadReactor<grpc::ByteBuffer>* Upload(
      grpc::CallbackServerContext* context,
      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context,
                                const grpc::ByteBuffer* request,
                                grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetRows(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;

 private:
  const Environment environment_;
  engine::Executor disk_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_DATASETS_SERVICE_H_
