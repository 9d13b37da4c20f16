#ifndef CUPOLA_SERVER_SERVICE_JOB_WATCH_H_
#define CUPOLA_SERVER_SERVICE_JOB_WATCH_H_

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/engine/jobs.h"
#include "server/service/request_scope.h"

namespace cupola::service {

// The server's side of a watched job. A message goes out as soon as the
// transport has taken over the one before, with the job as it is then: a slow
// client misses steps, and nobody waits for it.
//
// Owns itself: deleted when gRPC is done with the call, which is when the job
// has ended, the client has gone, or the server ends. After construction either
// Follow or Fail is called, once.
class JobWatch final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit JobWatch(std::unique_ptr<RequestScope> scope);

  RequestScope& scope() { return *scope_; }

  void Follow(engine::Jobs* jobs, const std::string& id);
  void Fail(const absl::Status& status);

  void OnCancel() override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  // What the jobs hold: it outlives the call.
  struct Link {
    absl::Mutex mu;
    JobWatch* watch ABSL_GUARDED_BY(mu) = nullptr;
  };
  enum class Next { kNothing, kWrite, kWriteLast, kFail };
  // What there is to do, unless a write is under way; then Act does it, without
  // a lock: the call may end in it, and this with it.
  Next Choose() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Act(Next next);

  const std::unique_ptr<RequestScope> scope_;
  const std::shared_ptr<Link> link_ = std::make_shared<Link>();
  absl::Mutex mu_;
  std::optional<engine::JobInfo> latest_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> failure_ ABSL_GUARDED_BY(mu_);
  bool begun_ ABSL_GUARDED_BY(mu_) = false;  // Follow or Fail was called
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ByteBuffer message_;  // being written
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_JOB_WATCH_H_
