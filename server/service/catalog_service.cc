#include "server/service/catalog_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/service/catalog_conversion.h"
#include "server/service/request_conversion.h"

namespace cupola::service {
namespace {

absl::Status UnknownEntry(const engine::Engine& engine,
                          const std::string& name) {
  std::vector<std::string> known;
  for (const auto& model : engine.Models()) known.push_back(model.spec.name);
  for (const auto& dictionary : engine.Dictionaries()) {
    known.push_back(dictionary.spec.name);
  }
  return absl::NotFoundError(
      absl::StrCat("name is \"", name, "\"; the catalog has ",
                   known.empty() ? "no entries" : absl::StrJoin(known, ", ")));
}

absl::StatusOr<v1::DescribeResponse> Description(const engine::Engine& engine,
                                                 const std::string& name) {
  v1::DescribeResponse response;
  if (engine.HasModel(name)) {
    const auto status = engine.DescribeModel(name);
    if (!status.ok()) return status.status();
    *response.mutable_model() = ToProto(*status, /*with_hook_points=*/true);
    return response;
  }
  if (engine.HasDictionary(name)) {
    const auto status = engine.DescribeDictionary(name);
    if (!status.ok()) return status.status();
    *response.mutable_dictionary() = ToProto(*status);
    return response;
  }
  return UnknownEntry(engine, name);
}

void Reply(UnaryCall* call,
           const absl::StatusOr<v1::DescribeResponse>& response) {
  if (response.ok()) {
    call->Send(*response);
  } else {
    call->Fail(response.status());
  }
}

// Notes an entry's name for the log, unless nobody knows it: a name is only
// logged when it is the catalog's.
void NoteEntry(const engine::Engine& engine, const std::string& name,
               RequestNotes* notes) {
  if (engine.HasModel(name)) notes->model = name;
  if (engine.HasDictionary(name)) notes->dictionary = name;
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
          NoteEntry(engine, name, &call->scope().notes());
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
        const bool is_model = engine->HasModel(name);
        if (!is_model && !engine->HasDictionary(name)) {
          call->Fail(UnknownEntry(*engine, name));
          return;
        }
        if (!is_model && processing->has_value()) {
          call->Fail(absl::InvalidArgumentError(
              absl::StrCat("processing is set for the dictionary \"", name,
                           "\"; accepted: for models only")));
          return;
        }
        NoteEntry(*engine, name, &call->scope().notes());
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
          if (!engine->HasModel(name) && !engine->HasDictionary(name)) {
            call->Fail(UnknownEntry(*engine, name));
            return;
          }
          NoteEntry(*engine, name, &call->scope().notes());
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
        if (engine->HasModel(name)) {
          call->Fail(absl::InvalidArgumentError(absl::StrCat(
              "name is the model \"", name, "\"; accepted: a dictionary")));
          return;
        }
        if (!engine->HasDictionary(name)) {
          call->Fail(UnknownEntry(*engine, name));
          return;
        }
        NoteEntry(*engine, name, &call->scope().notes());
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

}  // namespace cupola::service
