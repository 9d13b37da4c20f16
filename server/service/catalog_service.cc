#include "server/service/catalog_service.h"

#include <string>
#include <utility>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/service/catalog_conversion.h"
#include "server/service/registry.h"
#include "server/service/request_conversion.h"
#include "server/service/upload_call.h"

namespace cupola::service {
namespace {

absl::StatusOr<v1::DescribeResponse> Description(const engine::Engine& engine,
                                                 const std::string& name) {
  const absl::StatusOr<engine::EntryStatus> status = engine.Describe(name);
  if (!status.ok()) return status.status();
  v1::DescribeResponse response;
  if (const auto* model = std::get_if<engine::ModelStatus>(&*status)) {
    *response.mutable_model() = ToProto(*model, /*with_hook_points=*/true);
  } else {
    *response.mutable_dictionary() =
        ToProto(std::get<engine::DictionaryStatus>(*status));
  }
  return response;
}

void Reply(UnaryCall* call,
           const absl::StatusOr<v1::DescribeResponse>& response) {
  if (response.ok()) {
    call->Send(*response);
  } else {
    call->Fail(response.status());
  }
}

absl::Status NothingComesAndGoes() {
  return absl::FailedPreconditionError("this server registers nothing");
}

enum class Kind { kModel, kDictionary };

// What an entry is. Its name is noted for the log: one that nobody knows is
// not.
absl::StatusOr<Kind> Find(const engine::Engine& engine, const std::string& name,
                          RequestNotes* notes) {
  const absl::StatusOr<engine::EntryStatus> status = engine.Describe(name);
  if (!status.ok()) return status.status();
  if (std::holds_alternative<engine::ModelStatus>(*status)) {
    notes->model = name;
    return Kind::kModel;
  }
  notes->dictionary = name;
  return Kind::kDictionary;
}

}  // namespace

grpc::ServerUnaryReactor* CatalogService::List(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "List", context), response);
  Receive<v1::ListRequest>(
      environment_, call, request, [this, call](const v1::ListRequest&) {
        environment_.executor->Run([this, call] {
          v1::ListResponse answer;
          for (const auto& status : environment_.engine->Models()) {
            *answer.add_models() = ToProto(status, /*with_hook_points=*/false);
          }
          for (const auto& status : environment_.engine->Dictionaries()) {
            *answer.add_dictionaries() = ToProto(status);
          }
          for (const auto& memory : environment_.engine->Memory()) {
            v1::DeviceMemory* message = answer.add_memory();
            message->set_device(memory.device);
            message->set_used_bytes(memory.used_bytes);
            message->set_budget_bytes(memory.budget_bytes);
          }
          call->Send(answer);
        });
      });
  return call;
}

grpc::ServerUnaryReactor* CatalogService::Describe(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "Describe", context), response);
  Receive<v1::DescribeRequest>(
      environment_, call, request,
      [this, call](const v1::DescribeRequest& message) {
        environment_.executor->Run([this, call, name = message.name()] {
          const engine::Engine& engine = *environment_.engine;
          (void)Find(engine, name, &call->scope().notes());
          Reply(call, Description(engine, name));
        });
      });
  return call;
}

grpc::ServerUnaryReactor* CatalogService::Load(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "Load", context), response);
  Receive<v1::LoadRequest>(
      environment_, call, request,
      [this, call](const v1::LoadRequest& message) {
        engine::Engine* engine = environment_.engine;
        const std::string name = message.name();
        const auto processing =
            ProcessingFromProto(message.processing(), "processing");
        if (!processing.ok()) {
          call->Fail(processing.status());
          return;
        }
        const auto kind = Find(*engine, name, &call->scope().notes());
        if (!kind.ok()) {
          call->Fail(kind.status());
          return;
        }
        if (*kind != Kind::kModel && processing->has_value()) {
          call->Fail(absl::InvalidArgumentError(
              absl::StrCat("processing is set for the dictionary \"", name,
                           "\"; accepted: for models only")));
          return;
        }
        engine->Load(name, *processing, call->scope().context(),
                     [engine, call, name](absl::StatusOr<std::string> loaded) {
                       if (!loaded.ok()) {
                         call->Fail(loaded.status());
                         return;
                       }
                       Reply(call, Description(*engine, name));
                     });
      });
  return call;
}

grpc::ServerUnaryReactor* CatalogService::Unload(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "Unload", context), response);
  Receive<v1::UnloadRequest>(
      environment_, call, request,
      [this, call](const v1::UnloadRequest& message) {
        environment_.executor->Run([this, call, name = message.name()] {
          engine::Engine* engine = environment_.engine;
          (void)Find(*engine, name, &call->scope().notes());
          const absl::Status unloaded = engine->Unload(name);
          if (!unloaded.ok()) {
            call->Fail(unloaded);
            return;
          }
          Reply(call, Description(*engine, name));
        });
      });
  return call;
}

grpc::ServerUnaryReactor* CatalogService::SelfCheck(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "SelfCheck", context), response);
  Receive<v1::SelfCheckRequest>(
      environment_, call, request,
      [this, call](const v1::SelfCheckRequest& message) {
        engine::Engine* engine = environment_.engine;
        const std::string name = message.name();
        const auto kind = Find(*engine, name, &call->scope().notes());
        if (!kind.ok()) {
          call->Fail(kind.status());
          return;
        }
        if (*kind == Kind::kModel) {
          call->Fail(absl::InvalidArgumentError(absl::StrCat(
              "name is the model \"", name, "\"; accepted: a dictionary")));
          return;
        }
        engine->SelfCheck(
            name, call->scope().context(),
            [call](absl::StatusOr<engine::DictionaryStatus> status) {
              if (!status.ok()) {
                call->Fail(status.status());
                return;
              }
              v1::DescribeResponse answer;
              *answer.mutable_dictionary() = ToProto(*status);
              call->Send(answer);
            });
      });
  return call;
}

grpc::ServerUnaryReactor* CatalogService::Register(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "Register", context), response);
  Receive<v1::RegisterRequest>(
      environment_, call, request,
      [this, call](const v1::RegisterRequest& message) {
        if (environment_.registry == nullptr) {
          call->Fail(NothingComesAndGoes());
          return;
        }
        environment_.registry->Run([this, call, message] {
          const auto name = environment_.registry->Register(message);
          if (!name.ok()) {
            call->Fail(name.status());
            return;
          }
          (void)Find(*environment_.engine, *name, &call->scope().notes());
          Reply(call, Description(*environment_.engine, *name));
        });
      });
  return call;
}

grpc::ServerUnaryReactor* CatalogService::Unregister(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "Unregister", context), response);
  Receive<v1::UnregisterRequest>(
      environment_, call, request,
      [this, call](const v1::UnregisterRequest& message) {
        if (environment_.registry == nullptr) {
          call->Fail(NothingComesAndGoes());
          return;
        }
        environment_.registry->Run([this, call, name = message.name()] {
          (void)Find(*environment_.engine, name, &call->scope().notes());
          const absl::Status left = environment_.registry->Unregister(name);
          if (left.ok()) {
            call->Send(v1::UnregisterResponse());
          } else {
            call->Fail(left);
          }
        });
      });
  return call;
}

grpc::ServerReadReactor<grpc::ByteBuffer>* CatalogService::UploadDictionary(
    grpc::CallbackServerContext* context, grpc::ByteBuffer* response) {
  return new UploadCall(environment_,
                        MakeScope(environment_, "UploadDictionary", context),
                        response);
}

}  // namespace cupola::service
