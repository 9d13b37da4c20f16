#ifndef CUPOLA_CLIENT_CPP_CHUNK_ASSEMBLER_H_
#define CUPOLA_CLIENT_CPP_CHUNK_ASSEMBLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cupola/v1/tensor.pb.h"
#include "google/protobuf/message.h"

namespace cupola {

// Puts the chunks of a streamed answer back into the tensors of its header:
// each empty tensor, in field order (depth first), takes as many bytes as its
// shape and type ask for.
//
//   assembler = ChunkAssembler::Create(&header, provenance.chunked_bytes());
//   for each message: assembler->Append(chunk);
//   assembler->Finish();  // header is complete
//
// DATA_LOSS: the shapes do not add up to the announced bytes, or fewer or more
// bytes came.
class ChunkAssembler {
 public:
  // `header` outlives the assembler. Nothing is to come when `chunked_bytes` is
  // 0.
  static absl::StatusOr<ChunkAssembler> Create(
      google::protobuf::Message* header, int64_t chunked_bytes);

  // What the empty tensors of `header` are short of, for answers that announce
  // no bytes; the largest int64 where that is no number.
  static int64_t MissingBytes(google::protobuf::Message* header);

  absl::Status Append(absl::string_view chunk);
  absl::Status Finish() const;

 private:
  struct Slot {
    v1::Tensor* tensor;
    size_t bytes;
  };
  std::vector<Slot> slots_;
  size_t next_ = 0;  // the slot that takes the next byte
};

}  // namespace cupola

#endif  // CUPOLA_CLIENT_CPP_CHUNK_ASSEMBLER_H_
