#ifndef CUPOLA_SERVER_SERVICE_UNARY_CALL_H_
#define CUPOLA_SERVER_SERVICE_UNARY_CALL_H_

#include <memory>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/service/request_scope.h"
#include "server/service/wire.h"

namespace cupola::service {

// The server's side of a unary call, with ChunkedWriter's rules: owns itself,
// and exactly one of Send and Fail is called, once, from any thread.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  // `response` is gRPC's; it lives as long as this.
  UnaryCall(std::unique_ptr<RequestScope> scope, grpc::ByteBuffer* response)
      : scope_(std::move(scope)), response_(response) {}

  RequestScope& scope() { return *scope_; }

  void Send(const google::protobuf::Message& answer) {
    *response_ = SerializeMessage(answer);
    scope_->CountBytes(response_->Length());
    Finish(scope_->End(absl::OkStatus()));
  }
  void Fail(const absl::Status& status) { Finish(scope_->End(status)); }

  void OnCancel() override { scope_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  const std::unique_ptr<RequestScope> scope_;
  grpc::ByteBuffer* const response_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_UNARY_CALL_H_
