#ifndef CUPOLA_SERVER_SERVICE_UPLOAD_CALL_H_
#define CUPOLA_SERVER_SERVICE_UPLOAD_CALL_H_

#include <memory>

#include "grpcpp/alarm.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/service/environment.h"
#include "server/service/registry.h"

namespace cupola::service {

// The server's side of an upload: one message after another, each handled on
// the registry's threads, since it waits for the disk. However the call ends,
// what was not kept is deleted with it. One whose client sends nothing for the
// registry's idle limit ends as DEADLINE_EXCEEDED, and at once when the server
// drains: it keeps a share of the quota, and a drain waiting. Owns itself.
class UploadCall final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  // `response` is gRPC's; `environment` outlives this.
  UploadCall(const Environment& environment,
             std::unique_ptr<RequestScope> scope, grpc::ByteBuffer* response);

  void OnReadDone(bool ok) override;
  void OnCancel() override { scope_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  // What the alarm's callback knows, which may outlive the call.
  struct Watch;
  void Read();
  // REQUIRES: the watch is locked.
  static void SetAlarm(const std::shared_ptr<Watch>& watch);
  // Handles message_. True: the call goes on with the next; else it has ended.
  absl::StatusOr<bool> Handle();
  // Why a call whose messages have ended early fails.
  absl::Status Broken() const;
  // On a registry's thread, or before anything was uploaded.
  void End(const absl::Status& status);

  const Environment& environment_;
  const std::unique_ptr<RequestScope> scope_;
  grpc::ByteBuffer* const response_;
  const std::shared_ptr<Watch> watch_;
  grpc::ByteBuffer message_;
  std::shared_ptr<Registry::Upload> upload_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_UPLOAD_CALL_H_
