#include "server/service/datasets_service.h"

#include <string>
#include <utility>

#include "server/service/dataset_receiver.h"
#include "server/service/datasets_conversion.h"
#include "server/service/unary_call.h"

namespace cupola::service {
namespace {

constexpr int kDiskThreads = 2;

// What the engine tells of: sends its message, or fails the call.
template <typename Info>
void Reply(UnaryCall* call, absl::StatusOr<Info> info) {
  if (info.ok()) {
    call->scope().AnswerReady();
    call->Send(ToProto(*std::move(info)));
  } else {
    call->Fail(info.status());
  }
}

}  // namespace

DatasetsService::DatasetsService(const Environment& environment)
    : environment_(environment), disk_(kDiskThreads) {}

grpc::ServerReadReactor<grpc::ByteBuffer>* DatasetsService::Upload(
    grpc::CallbackServerContext* context, grpc::ByteBuffer* response) {
  auto scope = MakeScope(environment_, "UploadDataset", context);
  engine::Sender sender{scope->actor().name, scope->context().client};
  return new UploadStream(
      &disk_, std::move(scope), context, response,
      std::make_unique<DatasetReceiver>(&environment_.engine->datasets(),
                                        std::move(sender)));
}

grpc::ServerUnaryReactor* DatasetsService::List(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "ListDatasets", context), response);
  Receive<v1::ListDatasetsRequest>(
      environment_, call, request,
      [this, call](const v1::ListDatasetsRequest&) {
        disk_.Run([this, call] {
          engine::Datasets& datasets = environment_.engine->datasets();
          const auto infos = datasets.List();
          if (!infos.ok()) {
            call->Fail(infos.status());
            return;
          }
          v1::ListDatasetsResponse answer;
          for (const engine::DatasetInfo& info : *infos) {
            *answer.add_datasets() = ToProto(info);
          }
          answer.set_bytes(datasets.Bytes());
          answer.set_max_bytes(datasets.MaxBytes());
          call->Send(answer);
        });
      });
  return call;
}

grpc::ServerUnaryReactor* DatasetsService::Get(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "GetDataset", context), response);
  Receive<v1::DatasetName>(
      environment_, call, request, [this, call](v1::DatasetName message) {
        disk_.Run([this, call, name = std::move(*message.mutable_name())] {
          Reply(call, environment_.engine->datasets().Get(name));
        });
      });
  return call;
}

grpc::ServerUnaryReactor* DatasetsService::Delete(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call = new UnaryCall(MakeScope(environment_, "DeleteDataset", context),
                             response);
  Receive<v1::DatasetName>(
      environment_, call, request, [this, call](v1::DatasetName message) {
        disk_.Run([this, call, name = std::move(*message.mutable_name())] {
          const absl::Status deleted = environment_.engine->datasets().Delete(
              name, call->scope().actor());
          if (deleted.ok()) {
            call->Send(v1::DeleteDatasetResponse());
          } else {
            call->Fail(deleted);
          }
        });
      });
  return call;
}

grpc::ServerUnaryReactor* DatasetsService::Tokenize(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call = new UnaryCall(
      MakeScope(environment_, "TokenizeDataset", context), response);
  Receive<v1::TokenizeDatasetRequest>(
      environment_, call, request,
      [this, call](const v1::TokenizeDatasetRequest& message) {
        auto how = FromProto(message.tokenization());
        if (!how.ok()) {
          call->Fail(how.status());
          return;
        }
        call->scope().notes().model = how->model;
        environment_.engine->TokenizeDataset(
            {message.dataset(), *std::move(how)}, call->scope().context(),
            [call](absl::StatusOr<engine::TokenizedInfo> info) {
              Reply(call, std::move(info));
            });
      });
  return call;
}

grpc::ServerUnaryReactor* DatasetsService::GetRows(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call = new UnaryCall(MakeScope(environment_, "GetDatasetRows", context),
                             response);
  Receive<v1::DatasetRowsRequest>(
      environment_, call, request,
      [this, call](const v1::DatasetRowsRequest& message) {
        engine::ReadDatasetRequest plain;
        plain.dataset = message.dataset();
        plain.first = message.first();
        plain.count = message.count();
        if (message.has_tokenization()) {
          auto how = FromProto(message.tokenization());
          if (!how.ok()) {
            call->Fail(how.status());
            return;
          }
          plain.how = *std::move(how);
        }
        environment_.engine->ReadDataset(
            std::move(plain), call->scope().context(),
            [call](absl::StatusOr<engine::ReadDatasetAnswer> answer) {
              Reply(call, std::move(answer));
            });
      });
  return call;
}

}  // namespace cupola::service
