#ifndef CUPOLA_SERVER_SERVICE_UPLOAD_CALL_H_
#define CUPOLA_SERVER_SERVICE_UPLOAD_CALL_H_

#include <memory>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/service/environment.h"
#include "server/service/registry.h"

namespace cupola::service {

// The server's side of an upload: one message after another, each handled on
// the environment's executor, since it waits for the disk. However the call
// ends, what was not kept is deleted with it. Owns itself.
class UploadCall final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  // `response` is gRPC's; `environment` outlives this.
  UploadCall(const Environment& environment,
             std::unique_ptr<RequestScope> scope, grpc::ByteBuffer* response);

  void OnReadDone(bool ok) override;
  void OnCancel() override { scope_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  // Handles message_. True: the call goes on with the next; else it has ended.
  absl::StatusOr<bool> Handle();
  void End(const absl::Status& status);

  const Environment& environment_;
  const std::unique_ptr<RequestScope> scope_;
  grpc::ByteBuffer* const response_;
  grpc::ByteBuffer message_;
  std::shared_ptr<Registry::Upload> upload_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_UPLOAD_CALL_H_
