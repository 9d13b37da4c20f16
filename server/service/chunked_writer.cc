#include "server/service/chunked_writer.h"

#include <algorithm>
#include <utility>

#include "google/protobuf/io/coded_stream.h"
#include "grpcpp/support/slice.h"
#include "server/service/wire.h"

namespace cupola::service {
namespace {

using Pieces = std::shared_ptr<std::vector<std::string>>;

// Below this, a copy costs less than a reference.
constexpr size_t kCopiedBytes = 4096;

// `bytes` of `owner`, which stays alive while the slice does.
grpc::Slice Refer(const Pieces& owner, char* bytes, size_t size) {
  if (size < kCopiedBytes) return grpc::Slice(bytes, size);
  return grpc::Slice(
      bytes, size, [](void* data) { delete static_cast<Pieces*>(data); },
      new Pieces(owner));
}

// The tag of `bytes chunk = 2` (field 2, wire type 2) and the length.
grpc::Slice ChunkPrefix(size_t size) {
  uint8_t prefix[6] = {0x12};
  const uint8_t* end =
      google::protobuf::io::CodedOutputStream::WriteVarint32ToArray(
          static_cast<uint32_t>(size), prefix + 1);
  return grpc::Slice(prefix, end - prefix);
}

}  // namespace

ChunkedWriter::ChunkedWriter(std::unique_ptr<RequestScope> scope)
    : scope_(std::move(scope)) {}

void ChunkedWriter::Send(const google::protobuf::Message& first,
                         std::vector<std::string> pieces) {
  pieces_ = std::make_shared<std::vector<std::string>>(std::move(pieces));
  Write(SerializeMessage(first));
}

void ChunkedWriter::SendFrom(const google::protobuf::Message& first,
                             engine::Executor* executor, NextPiece next) {
  executor_ = executor;
  next_piece_ = std::move(next);
  Send(first, {});
}

void ChunkedWriter::WriteNextPiece() {
  absl::StatusOr<std::string> piece = next_piece_();
  if (!piece.ok()) return Fail(piece.status());
  if (piece->empty()) return Finish(scope_->End(absl::OkStatus()));
  // The transport may still hold the one before.
  pieces_ = std::make_shared<std::vector<std::string>>(1, *std::move(piece));
  piece_ = offset_ = 0;
  Write(NextChunk());
}

void ChunkedWriter::Fail(const absl::Status& status) {
  Finish(scope_->End(status));
}

bool ChunkedWriter::HasMore() const {
  for (size_t i = piece_; i < pieces_->size(); ++i) {
    if ((*pieces_)[i].size() > (i == piece_ ? offset_ : 0)) return true;
  }
  return false;
}

grpc::ByteBuffer ChunkedWriter::NextChunk() {
  std::vector<grpc::Slice> slices(1);  // the prefix, once the size is known
  size_t size = 0;
  while (piece_ < pieces_->size() && size < kChunkBytes) {
    std::string& piece = (*pieces_)[piece_];
    const size_t take =
        std::min<size_t>(piece.size() - offset_, kChunkBytes - size);
    if (take > 0) slices.push_back(Refer(pieces_, &piece[offset_], take));
    size += take;
    offset_ += take;
    if (offset_ == piece.size()) {
      ++piece_;
      offset_ = 0;
    }
  }
  slices[0] = ChunkPrefix(size);
  return grpc::ByteBuffer(slices.data(), slices.size());
}

void ChunkedWriter::Write(grpc::ByteBuffer message) {
  if (absl::Status wanted = scope_->StillWanted(); !wanted.ok()) {
    Fail(wanted);
    return;
  }
  message_ = std::move(message);
  scope_->CountBytes(message_.Length());
  if (HasMore() || next_piece_ != nullptr) {
    StartWrite(&message_);
  } else {
    StartWriteAndFinish(&message_, grpc::WriteOptions(),
                        scope_->End(absl::OkStatus()));
  }
}

void ChunkedWriter::OnCancel() { scope_->Cancel(); }

void ChunkedWriter::OnWriteDone(bool ok) {
  if (!ok) {
    Fail(absl::CancelledError("the client has gone"));
    return;
  }
  if (HasMore() || next_piece_ == nullptr) return Write(NextChunk());
  executor_->Run([this] { WriteNextPiece(); });
}

void ChunkedWriter::OnDone() { delete this; }

}  // namespace cupola::service
