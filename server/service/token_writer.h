#ifndef CUPOLA_SERVER_SERVICE_TOKEN_WRITER_H_
#define CUPOLA_SERVER_SERVICE_TOKEN_WRITER_H_

#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "cupola/v1/generate.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/service/request_scope.h"

namespace cupola::service {

// The server's side of a stream of tokens. A message goes out as soon as the
// transport has taken over the one before; what comes meanwhile is gathered in
// the next. So whoever generates never waits for whoever reads: a slow client
// gets several tokens in a message, and the server holds at most what is left
// of the answer, whose size the engine has bounded.
//
// Owns itself: deleted when gRPC is done with the call. After construction,
// exactly one of Send and Fail must be called, once, after the last Put; until
// then scope() belongs to the caller. Any thread may call. When the client goes
// away, or the server ends, Put says so.
class TokenWriter final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit TokenWriter(std::unique_ptr<RequestScope> scope);

  RequestScope& scope() { return *scope_; }

  // Not OK: nobody reads any more.
  absl::Status Put(v1::GenerateResponse::Token token);
  // Sends what was put, then `last`.
  void Send(v1::GenerateResponse last);
  void Fail(const absl::Status& status);

  void OnCancel() override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  enum class Next { kNothing, kWrite, kWriteLast, kFail };

  // Makes a change and starts what there is to do then. Nothing of this may be
  // touched afterwards.
  template <typename Change>
  void Advance(const Change& change);
  // What there is to do, unless a write is under way; readies it.
  Next Choose() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::unique_ptr<RequestScope> scope_;
  absl::Mutex mu_;
  std::deque<v1::GenerateResponse::Token> waiting_ ABSL_GUARDED_BY(mu_);
  std::optional<v1::GenerateResponse> last_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> outcome_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  // Belong to who was told to write or to fail.
  grpc::ByteBuffer message_;  // being written
  absl::Status failure_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_TOKEN_WRITER_H_
