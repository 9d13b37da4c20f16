#ifndef CUPOLA_SERVER_SERVICE_ENVIRONMENT_H_
#define CUPOLA_SERVER_SERVICE_ENVIRONMENT_H_

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/engine/engine.h"
#include "server/engine/executor.h"
#include "server/service/call_gate.h"
#include "server/service/chunked_writer.h"
#include "server/service/metrics.h"
#include "server/service/request_scope.h"
#include "server/service/unary_call.h"
#include "server/service/wire.h"

// What the three services share.

namespace cupola::service {

// The largest request the transport takes.
inline constexpr int kMaxMessageBytes = 32 << 20;
// Messages up to this size are parsed where they arrive.
inline constexpr size_t kParseInline = 64 << 10;

class Registry;  // registry.h

// What handlers work with; everything outlives the server.
struct Environment {
  engine::Engine* engine;
  Metrics* metrics;
  CallGate* gate;
  Access* access;
  // For what a reaction must not do itself: parsing large messages, asking the
  // disk.
  engine::Executor* executor;
  std::string version, torch_version;
  // Of the entries that come and go; null where there are none.
  Registry* registry = nullptr;
};

inline std::unique_ptr<RequestScope> MakeScope(
    const Environment& environment, const char* method,
    grpc::CallbackServerContext* context) {
  return std::make_unique<RequestScope>(method, context, environment.gate,
                                        environment.metrics,
                                        environment.access);
}

// Parses `bytes` and calls `body(Request)`, or fails the call: when the call is
// not admitted, or the bytes are no Request. `bytes` is gRPC's and lives as
// long as the call. Large messages are parsed on the executor.
template <typename Request, typename Call, typename Body>
void Receive(const Environment& environment, Call* call,
             const grpc::ByteBuffer* bytes, Body body) {
  if (const absl::Status& admitted = call->scope().admitted(); !admitted.ok()) {
    call->Fail(admitted);
    return;
  }
  call->scope().CountBytes(bytes->Length());
  auto parse = [call, bytes, body = std::move(body)] {
    Request request;
    const absl::Status status = ParseMessage(*bytes, &request);
    if (!status.ok()) {
      call->Fail(status);
      return;
    }
    body(std::move(request));
  };
  if (bytes->Length() <= kParseInline) {
    parse();
  } else {
    environment.executor->Run(std::move(parse));
  }
}

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ENVIRONMENT_H_
