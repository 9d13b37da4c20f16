#include "server/service/wire.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "server/service/parsed_size.h"

namespace cupola::service {
namespace {

// Protobuf names the field that is not UTF-8 in a log line only.
thread_local std::string* parse_complaint = nullptr;

void KeepComplaint(google::protobuf::LogLevel /*level*/, const char* /*file*/,
                   int /*line*/, const std::string& message) {
  if (parse_complaint != nullptr) *parse_complaint = message;
}

// Set once and left: Protobuf has one handler per process, and what it would
// print on standard error is reported to the caller instead.
void InstallHandler() {
  [[maybe_unused]] static const bool installed = [] {
    google::protobuf::SetLogHandler(&KeepComplaint);
    return true;
  }();
}

// Of messages up to this size nothing becomes too large.
constexpr size_t kSmallMessage = 64 << 10;

absl::Status CheckParsedSize(const grpc::ByteBuffer& bytes,
                             const google::protobuf::Message& message) {
  grpc::ByteBuffer shared = bytes;
  grpc::ProtoBufferReader reader(&shared);
  if (!reader.status().ok()) return absl::OkStatus();  // parsing says so
  const int64_t size = ParsedSize(&reader, message.GetDescriptor());
  if (size <= kMaxParsedBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the request's ", bytes.Length(), " bytes hold objects of ",
                   size, " bytes of memory; accepted: at most ",
                   kMaxParsedBytes, "; send several requests"));
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message* message) {
  if (bytes.Length() > kSmallMessage) {
    const absl::Status small = CheckParsedSize(bytes, *message);
    if (!small.ok()) return small;
  }
  InstallHandler();
  std::string complaint;
  parse_complaint = &complaint;
  grpc::ByteBuffer shared = bytes;  // the reader wants it mutable
  grpc::ProtoBufferReader reader(&shared);
  const bool parsed =
      reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
  parse_complaint = nullptr;
  if (parsed) return absl::OkStatus();
  if (absl::StrContains(complaint, "invalid UTF-8")) {
    const std::string field =
        complaint.substr(0, complaint.find(" contains invalid UTF-8"));
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is not valid UTF-8 text"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the request's ", bytes.Length(), " bytes are not a ",
                   message->GetDescriptor()->full_name(), " message"));
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  grpc::ByteBuffer bytes;
  bool own_buffer = false;
  // Fails only where a message exceeds 2 GiB; headers carry at most 1 MiB of
  // data.
  grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(
      message, &bytes, &own_buffer);
  return bytes;
}

}  // namespace cupola::service
