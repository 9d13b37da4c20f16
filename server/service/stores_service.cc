#include "server/service/stores_service.h"

#include <utility>

#include "server/service/chunked_writer.h"
#include "server/service/stores_conversion.h"
#include "server/service/submit_job.h"
#include "server/service/unary_call.h"

namespace cupola::service {

grpc::ServerUnaryReactor* StoresService::Store(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return SubmitJob<v1::StoreActivationsRequest>(
      environment_, "StoreActivations", context, request, response,
      &engine::Engine::StoreActivations);
}

grpc::ServerUnaryReactor* StoresService::List(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "ListStores", context), response);
  Receive<v1::ListStoresRequest>(
      environment_, call, request, [this, call](const v1::ListStoresRequest&) {
        environment_.executor->Run([this, call] {
          engine::ActivationStores& stores = environment_.engine->stores();
          const auto infos = stores.List();
          if (!infos.ok()) return call->Fail(infos.status());
          v1::ListStoresResponse answer;
          for (const engine::StoreInfo& info : *infos) {
            *answer.add_stores() = ToProto(info);
          }
          answer.set_bytes(stores.Bytes());
          answer.set_max_bytes(stores.MaxBytes());
          call->Send(answer);
        });
      });
  return call;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* StoresService::Read(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  auto* call = new ChunkedWriter(MakeScope(environment_, "ReadStore", context));
  Receive<v1::ReadStoreRequest>(
      environment_, call, request,
      [this, call](const v1::ReadStoreRequest& message) {
        environment_.engine->ReadStore(
            FromProto(message), call->scope().context(),
            [call](absl::StatusOr<engine::ReadStoreAnswer> answer) {
              if (!answer.ok()) return call->Fail(answer.status());
              call->scope().AnswerReady();
              auto streamed = ToProto(*std::move(answer));
              call->Send(streamed.first, std::move(streamed.pieces));
            });
      });
  return call;
}

grpc::ServerUnaryReactor* StoresService::Delete(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "DeleteStore", context), response);
  Receive<v1::StoreId>(
      environment_, call, request, [this, call](const v1::StoreId& message) {
        environment_.executor->Run([this, call, key = message.key()] {
          const absl::Status deleted =
              environment_.engine->stores().Delete(key);
          if (!deleted.ok()) return call->Fail(deleted);
          call->Send(v1::DeleteStoreResponse());
        });
      });
  return call;
}

}  // namespace cupola::service
