#include "server/service/analysis_service.h"

#include <utility>

#include "absl/status/statusor.h"
#include "server/service/answer_conversion.h"
#include "server/service/attribution_conversion.h"
#include "server/service/directions_conversion.h"
#include "server/service/generate_conversion.h"
#include "server/service/jacobian_conversion.h"
#include "server/service/means_conversion.h"
#include "server/service/request_conversion.h"
#include "server/service/run_conversion.h"
#include "server/service/token_writer.h"
#include "server/service/weights_conversion.h"

namespace cupola::service {
namespace {

int64_t CountTokens(const engine::Provenance& provenance) {
  int64_t tokens = 0;
  for (const auto& ids : provenance.token_ids) {
    tokens += static_cast<int64_t>(ids.size());
  }
  return tokens;
}

int64_t CountPrompts(const engine::Prompts& prompts) {
  return static_cast<int64_t>(prompts.prompts.size());
}
int64_t CountPrompts(const std::optional<engine::Prompts>& prompts) {
  return prompts.has_value() ? CountPrompts(*prompts) : 0;
}

// The names a request brings; the engine's answer replaces them.
template <typename Request>
void NoteNames(const Request& request, RequestNotes* notes) {
  if constexpr (requires { request.model; }) notes->model = request.model;
  if constexpr (requires { request.dictionary; }) {
    notes->dictionary = request.dictionary;
  }
}

// The engine has answered: what its answer tells of itself.
void NoteAnswer(const engine::Provenance& provenance, RequestScope* scope) {
  scope->AnswerReady();
  RequestNotes& notes = scope->notes();
  notes.model = provenance.model;
  notes.tokens = CountTokens(provenance);
  notes.from_cache = provenance.from_cache;
  notes.seconds = provenance.seconds;
}

// Reads a request and passes it on, `ask(Request)`, or fails the call.
template <typename Message, typename Request, typename Call, typename Ask>
void Accept(const Environment& environment, Call* call,
            const grpc::ByteBuffer* bytes, Ask ask) {
  Receive<Message>(environment, call, bytes, [=](Message message) {
    if constexpr (requires { message.dry_run(); }) {
      call->scope().SetDryRun(message.dry_run());
    }
    absl::StatusOr<Request> request = FromProto(std::move(message));
    if (!request.ok()) {
      call->Fail(request.status());
      return;
    }
    RequestNotes& notes = call->scope().notes();
    NoteNames(*request, &notes);
    if constexpr (requires { request->prompts; }) {
      notes.prompts = CountPrompts(request->prompts);
    }
    ask(*std::move(request));
  });
}

// One streamed analysis, from bytes to bytes. `operation` is the engine's.
template <typename Message, typename Request, typename Answer>
ChunkedWriter* Stream(
    const Environment& environment, const char* method,
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
    void (engine::Engine::*operation)(Request, engine::RequestContext,
                                      engine::Engine::Done<Answer>)) {
  auto* call = new ChunkedWriter(MakeScope(environment, method, context));
  engine::Engine* engine = environment.engine;
  Accept<Message, Request>(environment, call, bytes, [=](Request request) {
    const auto done = [call](absl::StatusOr<Answer> answer) {
      if (!answer.ok()) {
        call->Fail(answer.status());
        return;
      }
      RequestScope& scope = call->scope();
      NoteAnswer(answer->provenance, &scope);
      auto streamed =
          ToProto(std::move(answer).value(), scope.SecondsSinceArrival());
      call->Send(streamed.first, std::move(streamed.pieces));
    };
    (engine->*operation)(std::move(request), call->scope().context(), done);
  });
  return call;
}

// One unary question.
template <typename Message, typename Request, typename Answer>
UnaryCall* Unary(
    const Environment& environment, const char* method,
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response,
    void (engine::Engine::*operation)(Request, engine::RequestContext,
                                      engine::Engine::Done<Answer>)) {
  auto* call = new UnaryCall(MakeScope(environment, method, context), response);
  engine::Engine* engine = environment.engine;
  Accept<Message, Request>(environment, call, bytes, [=](Request request) {
    const auto done = [call](absl::StatusOr<Answer> answer) {
      if (!answer.ok()) {
        call->Fail(answer.status());
        return;
      }
      call->scope().AnswerReady();
      if constexpr (requires { answer->prompts.front().ids; }) {
        for (const auto& tokens : answer->prompts) {
          call->scope().notes().tokens +=
              static_cast<int64_t>(tokens.ids.size());
        }
      }
      call->Send(ToProto(std::move(answer).value()));
    };
    (engine->*operation)(std::move(request), call->scope().context(), done);
  });
  return call;
}

}  // namespace

grpc::ServerUnaryReactor* AnalysisService::Tokenize(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return Unary<v1::TokenizeRequest>(environment_, "Tokenize", context, request,
                                    response, &engine::Engine::Tokenize);
}

grpc::ServerUnaryReactor* AnalysisService::ListMeans(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return Unary<v1::ListMeansRequest>(environment_, "ListMeans", context,
                                     request, response,
                                     &engine::Engine::ListMeans);
}

grpc::ServerUnaryReactor* AnalysisService::DeleteMean(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return Unary<v1::DeleteMeanRequest>(environment_, "DeleteMean", context,
                                      request, response,
                                      &engine::Engine::DeleteMean);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::MeanActivation(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::MeanActivationRequest>(environment_, "MeanActivation",
                                           context, request,
                                           &engine::Engine::MeanActivation);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::GetActivations(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::ActivationsRequest>(environment_, "GetActivations", context,
                                        request,
                                        &engine::Engine::GetActivations);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::GetFeatures(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::FeaturesRequest>(environment_, "GetFeatures", context,
                                     request, &engine::Engine::GetFeatures);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::Reconstruct(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::ReconstructRequest>(environment_, "Reconstruct", context,
                                        request, &engine::Engine::Reconstruct);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::Run(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::RunRequest>(environment_, "Run", context, request,
                                &engine::Engine::Run);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  auto* call = new TokenWriter(MakeScope(environment_, "Generate", context));
  engine::Engine* engine = environment_.engine;
  Receive<v1::GenerateRequest>(
      environment_, call, request, [=](v1::GenerateRequest message) {
        call->scope().SetDryRun(message.dry_run());
        auto plain = FromProto(std::move(message));
        if (!plain.ok()) {
          call->Fail(plain.status());
          return;
        }
        NoteNames(*plain, &call->scope().notes());
        call->scope().notes().prompts = CountPrompts(plain->prompts);
        plain->sink = [call](engine::GeneratedPiece piece) {
          v1::GenerateResponse::Token token;
          ToProto(std::move(piece), &token);
          return call->Put(std::move(token));
        };
        const auto done =
            [call](absl::StatusOr<engine::GenerateAnswer> answer) {
              if (!answer.ok()) {
                call->Fail(answer.status());
                return;
              }
              RequestScope& scope = call->scope();
              NoteAnswer(answer->provenance, &scope);
              call->Send(ToProto(std::move(answer).value(),
                                 scope.SecondsSinceArrival()));
            };
        engine->Generate(std::move(plain).value(), call->scope().context(),
                         done);
      });
  return call;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::Ablate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::AblateRequest>(environment_, "Ablate", context, request,
                                   &engine::Engine::Ablate);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::TabulateAblations(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::AblationTableRequest>(environment_, "TabulateAblations",
                                          context, request,
                                          &engine::Engine::TabulateAblations);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::GetWeight(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::WeightRequest>(environment_, "GetWeight", context, request,
                                   &engine::Engine::GetWeight);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::GetLatentWeights(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::LatentWeightsRequest>(environment_, "GetLatentWeights",
                                          context, request,
                                          &engine::Engine::GetLatentWeights);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::Attribute(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::AttributeRequest>(environment_, "Attribute", context,
                                      request, &engine::Engine::Attribute);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::LogitLens(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::LogitLensRequest>(environment_, "LogitLens", context,
                                      request, &engine::Engine::LogitLens);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::GetQuality(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::QualityRequest>(environment_, "GetQuality", context,
                                    request, &engine::Engine::GetQuality);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::AblateDirections(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::DirectionAblationRequest>(
      environment_, "AblateDirections", context, request,
      &engine::Engine::AblateDirections);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::Sweep(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::SweepRequest>(environment_, "Sweep", context, request,
                                  &engine::Engine::Sweep);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AnalysisService::GetJacobian(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return Stream<v1::JacobianRequest>(environment_, "GetJacobian", context,
                                     request, &engine::Engine::GetJacobian);
}

}  // namespace cupola::service
