#ifndef CUPOLA_SERVER_SERVICE_SUBMIT_JOB_H_
#define CUPOLA_SERVER_SERVICE_SUBMIT_JOB_H_

#include <utility>

#include "absl/status/statusor.h"
#include "server/engine/engine.h"
#include "server/service/environment.h"
#include "server/service/jobs_conversion.h"
#include "server/service/unary_call.h"

// Calls that are answered with a job.

namespace cupola::service {

inline void Reply(UnaryCall* call,
                  const absl::StatusOr<engine::JobInfo>& info) {
  if (info.ok()) {
    call->Send(ToProto(*info));
  } else {
    call->Fail(info.status());
  }
}

// One submission: `submit` is one of the engine's own.
template <typename Message, typename Submit>
UnaryCall* SubmitJob(const Environment& environment, const char* method,
                     grpc::CallbackServerContext* context,
                     const grpc::ByteBuffer* request,
                     grpc::ByteBuffer* response, Submit submit) {
  auto* call = new UnaryCall(MakeScope(environment, method, context), response);
  engine::Engine* engine = environment.engine;
  Receive<Message>(environment, call, request, [=](Message message) {
    auto options = FromProto(message.options());
    if (!options.ok()) return call->Fail(options.status());
    options->owner = call->scope().actor().name;
    auto plain = FromProto(std::move(message));
    if (!plain.ok()) return call->Fail(plain.status());
    (engine->*submit)(
        *std::move(plain), *std::move(options), call->scope().context(),
        [call](absl::StatusOr<engine::JobInfo> info) { Reply(call, info); });
  });
  return call;
}

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_SUBMIT_JOB_H_
