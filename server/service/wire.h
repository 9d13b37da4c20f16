#ifndef CUPOLA_SERVER_SERVICE_WIRE_H_
#define CUPOLA_SERVER_SERVICE_WIRE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"

// Messages as bytes. The services take gRPC's raw buffers and parse them here,
// because gRPC answers a message that does not parse with UNIMPLEMENTED and no
// text; and because a raw answer can refer to an array's memory instead of
// copying it.

namespace cupola::service {

// What a parsed message may take in memory.
inline constexpr int64_t kMaxParsedBytes = int64_t{512} << 20;

// RESOURCE_EXHAUSTED, before anything is allocated: the message would take more
// than kMaxParsedBytes (see ParsedSize). INVALID_ARGUMENT, with Protobuf's own
// reason where it gives one (the field whose text is not UTF-8), when `bytes`
// is no `message`.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_WIRE_H_
