#ifndef CUPOLA_SERVER_SERVICE_CHUNKED_WRITER_H_
#define CUPOLA_SERVER_SERVICE_CHUNKED_WRITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/engine/executor.h"
#include "server/service/request_scope.h"

namespace cupola::service {

inline constexpr int64_t kChunkBytes = 1 << 20;

// The server's side of every streamed answer: a header message, then messages
// that hold nothing but up to 1 MiB of raw bytes in field 2 (`chunk`), until
// the pieces are spent. The next write starts when the last one has been taken
// over by the transport, so a slow client holds its answer and at most two
// chunks of transport memory. Chunks refer to the pieces' memory; nothing is
// copied.
//
// Owns itself: deleted when gRPC is done with the call. After construction,
// exactly one of Send and Fail must be called, once, from any thread; until
// then scope() belongs to the caller. When the client goes away, writing stops
// and the call ends as CANCELLED (or DEADLINE_EXCEEDED); when the server ends,
// as UNAVAILABLE.
class ChunkedWriter final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit ChunkedWriter(std::unique_ptr<RequestScope> scope);

  RequestScope& scope() { return *scope_; }

  // Streams `first` and then `pieces` (may be empty).
  void Send(const google::protobuf::Message& first,
            std::vector<std::string> pieces);
  // Streams `first` and then what `next` gives, piece by piece, each asked for
  // on `executor` when the one before has been taken over; an empty one is the
  // end.
  using NextPiece = std::function<absl::StatusOr<std::string>()>;
  void SendFrom(const google::protobuf::Message& first,
                engine::Executor* executor, NextPiece next);
  void Fail(const absl::Status& status);

  void OnCancel() override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  bool HasMore() const;
  // The next chunk; advances.
  grpc::ByteBuffer NextChunk();
  // Writes `message`, with the status behind it when it is the last.
  void Write(grpc::ByteBuffer message);
  // Writes the next piece of next_piece_'s, or ends the call.
  void WriteNextPiece();

  const std::unique_ptr<RequestScope> scope_;
  // Shared with the transport, which may hold slices longer than this lives.
  std::shared_ptr<std::vector<std::string>> pieces_;
  size_t piece_ = 0;          // the next byte to send: its piece ...
  size_t offset_ = 0;         // ... and its place there
  grpc::ByteBuffer message_;  // being written
  engine::Executor* executor_ = nullptr;
  NextPiece next_piece_;  // null: the pieces are all there is
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_CHUNKED_WRITER_H_
