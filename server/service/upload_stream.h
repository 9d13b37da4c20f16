#ifndef CUPOLA_SERVER_SERVICE_UPLOAD_STREAM_H_
#define CUPOLA_SERVER_SERVICE_UPLOAD_STREAM_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/alarm.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/engine/executor.h"
#include "server/service/request_scope.h"

namespace cupola::service {

// What becomes of a stream of messages. Used by one thread at a time; destroyed
// however the call ends, and then leaves nothing of what has not come to its
// end.
class UploadReceiver {
 public:
  virtual ~UploadReceiver() = default;
  // The next message. An answer ends the call.
  virtual absl::StatusOr<std::optional<grpc::ByteBuffer>> Take(
      const grpc::ByteBuffer& message) = 0;
  // All messages have come, and none has ended the call. Calls `done` once,
  // from any thread; `this` lives until then.
  using Done = std::function<void(absl::StatusOr<grpc::ByteBuffer>)>;
  virtual void Finish(const engine::RequestContext& context, Done done) = 0;
};

// The server's side of an upload: one message after another, each handled on
// `disk`; the next is read when that is done, so that a quick client waits and
// one message is in memory. A client that sends nothing for a minute is sent
// away: it holds one of few places. Owns itself.
class UploadStream final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  // `context` and `response` are gRPC's; `disk` outlives this.
  UploadStream(engine::Executor* disk, std::unique_ptr<RequestScope> scope,
               grpc::CallbackServerContext* context, grpc::ByteBuffer* response,
               std::unique_ptr<UploadReceiver> receiver);

  void OnReadDone(bool ok) override;
  void OnCancel() override { scope_->Cancel(); }
  void OnDone() override;

 private:
  // What an alarm holds: it may ring when the call has ended.
  struct Link {
    absl::Mutex mu;
    grpc::CallbackServerContext* context ABSL_GUARDED_BY(mu);
  };
  void ReadNext();
  void TakeMessage();
  // With the answer, or why there is none.
  void End(absl::StatusOr<grpc::ByteBuffer> answer);

  engine::Executor* const disk_;
  const std::unique_ptr<RequestScope> scope_;
  grpc::ByteBuffer* const response_;
  const std::shared_ptr<Link> link_ = std::make_shared<Link>();
  std::unique_ptr<UploadReceiver> receiver_;
  std::unique_ptr<grpc::Alarm> idle_;
  grpc::ByteBuffer message_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_UPLOAD_STREAM_H_
