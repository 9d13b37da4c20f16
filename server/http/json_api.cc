#include "server/http/json_api.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/chunk_assembler.h"
#include "client/cpp/metadata_value.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/http/tensor_frames.h"

namespace cupola::http {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

constexpr absl::string_view kPackage = "cupola.v1.";
// A stream without an end of its own.
constexpr absl::string_view kEndless = "cupola.v1.Jobs.Watch";
// A file, which is no answer in JSON.
constexpr absl::string_view kFile = "cupola.v1.Jobs.ExportShard";
// How soon a caller's going is seen.
constexpr absl::Duration kLookEvery = absl::Milliseconds(200);
// What one JSON value, as a field of its own, may take when it has been parsed:
// an object, and another value.
constexpr int64_t kObjectBytes = 384;
constexpr int64_t kValueBytes = 64;

std::unique_ptr<Message> NewMessage(
    const google::protobuf::Descriptor* descriptor) {
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(descriptor)
          ->New());
}

// An upper bound of what a body takes when it has been parsed, with Protobuf's
// own binary copy of it on the way.
int64_t ParsedBytes(const std::string& body) {
  int64_t bytes = 2 * static_cast<int64_t>(body.size());
  for (const char c : body) {
    if (c == '{') bytes += kObjectBytes;
    if (c == '[' || c == ',') bytes += kValueBytes;
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<Message>> ParseRequest(
    const MethodDescriptor* method, const std::string& body) {
  // Protobuf's parser takes the other kinds of values for messages, too.
  const size_t first = body.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || body[first] != '{') {
    return absl::InvalidArgumentError("the body is no JSON object");
  }
  std::unique_ptr<Message> request = NewMessage(method->input_type());
  const auto status =
      google::protobuf::util::JsonStringToMessage(body, request.get());
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body is no ", method->input_type()->name(), ": ",
                     std::string(status.message())));
  }
  return request;
}

// A streamed answer in the making.
class Collector {
 public:
  Collector(const MethodDescriptor* method, int64_t max_bytes,
            ByteBudget::Share* share)
      : max_bytes_(max_bytes),
        share_(share),
        message_(NewMessage(method->output_type())) {
    const auto* type = method->output_type();
    header_ = type->FindFieldByName("header");
    chunk_ = type->FindFieldByName("chunk");
    if (header_ == nullptr || chunk_ == nullptr) header_ = chunk_ = nullptr;
  }

  absl::Status Add(grpc::ByteBuffer* bytes) {
    const auto size = static_cast<int64_t>(bytes->Length());
    bytes_ += size;
    if (bytes_ > max_bytes_) return TooLarge(bytes_);
    absl::Status held = Hold(size);
    if (!held.ok()) return held;
    std::unique_ptr<Message> part(message_->New());
    const grpc::Status parsed =
        grpc::GenericDeserialize<grpc::ProtoBufferReader, Message>(bytes,
                                                                   part.get());
    if (!parsed.ok()) return absl::DataLossError(parsed.error_message());
    const auto* reflection = part->GetReflection();
    if (assembler_.has_value()) {
      std::string scratch;
      return assembler_->Append(
          reflection->GetStringReference(*part, chunk_, &scratch));
    }
    held = Hold(static_cast<int64_t>(part->SpaceUsedLong()));
    if (!held.ok()) return held;
    message_->MergeFrom(*part);
    return header_ == nullptr ? absl::OkStatus() : ExpectChunks();
  }

  // The whole answer; the collector keeps it.
  absl::StatusOr<Message*> Finish() {
    if (header_ == nullptr) return message_.get();
    if (!assembler_.has_value()) {
      return absl::DataLossError("the answer has no header");
    }
    const absl::Status whole = assembler_->Finish();
    if (!whole.ok()) return whole;
    return Header();
  }

 private:
  absl::Status Hold(int64_t more) {
    return share_->Hold(share_->held() + more);
  }

  absl::Status TooLarge(int64_t bytes) const {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the answer has ", bytes, " bytes; accepted over HTTP: ", max_bytes_,
        "; gRPC has no such limit"));
  }

  Message* Header() {
    return message_->GetReflection()->MutableMessage(message_.get(), header_);
  }

  // The header has come, and tells how much is to follow.
  absl::Status ExpectChunks() {
    Message* header = Header();
    int64_t bytes = 0;
    const auto* field = header->GetDescriptor()->FindFieldByName("provenance");
    if (field == nullptr) {
      bytes = ChunkAssembler::MissingBytes(header);
    } else {
      const Message& provenance =
          header->GetReflection()->GetMessage(*header, field);
      bytes = provenance.GetReflection()->GetInt64(
          provenance,
          provenance.GetDescriptor()->FindFieldByName("chunked_bytes"));
    }
    if (bytes < 0 || bytes > max_bytes_) return TooLarge(bytes);
    const absl::Status held = Hold(bytes);
    if (!held.ok()) return held;
    auto assembler = ChunkAssembler::Create(header, bytes);
    if (!assembler.ok()) return assembler.status();
    assembler_ = *std::move(assembler);
    return absl::OkStatus();
  }

  const int64_t max_bytes_;
  ByteBudget::Share* const share_;
  std::unique_ptr<Message> message_;
  const FieldDescriptor* header_ = nullptr;
  const FieldDescriptor* chunk_ = nullptr;
  int64_t bytes_ = 0;
  std::optional<ChunkAssembler> assembler_;  // once the header has come
};

// One call, from the request's bytes to the last of the answer's, on this
// thread.
class Exchange {
 public:
  Exchange(const std::shared_ptr<grpc::Channel>& channel, const JsonCall& call)
      : gone_(call.gone), stub_(channel) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + call.timeout));
    const auto add = [this](const char* key, const std::string& value) {
      if (FitsMetadata(value)) context_.AddMetadata(key, value);
    };
    add("authorization", call.authorization);
    add("cupola-forwarded-address", call.address);
    add("traceparent", call.traceparent);
  }

  // Reads all of the answer into `collector`.
  absl::Status Run(const std::string& path, const grpc::ByteBuffer& request,
                   Collector* collector) {
    const auto call = stub_.PrepareCall(&context_, path, &queue_);
    call->StartCall(this);
    bool good = Await();
    if (good) {
      call->WriteLast(request, grpc::WriteOptions(), this);
      good = Await();
    }
    absl::Status collected;
    while (good && collected.ok()) {
      grpc::ByteBuffer message;
      call->Read(&message, this);
      good = Await();
      if (good) collected = collector->Add(&message);
    }
    if (!collected.ok()) context_.TryCancel();
    grpc::Status status;
    call->Finish(&status, this);
    Await();
    if (!collected.ok()) return collected;
    const absl::Status result(
        static_cast<absl::StatusCode>(status.error_code()),
        status.error_message());
    int64_t delay = 0;
    const bool retry = absl::SimpleAtoi(
        ValueOf(context_.GetServerTrailingMetadata(), "grpc-retry-pushback-ms"),
        &delay);
    return retry && !result.ok() ? WithRetry(result, delay) : result;
  }

  // The traceparent that the server has taken up; empty: none.
  std::string Trace() const {
    return ValueOf(context_.GetServerInitialMetadata(), "traceparent");
  }

 private:
  static std::string ValueOf(
      const std::multimap<grpc::string_ref, grpc::string_ref>& metadata,
      const char* key) {
    const auto found = metadata.find(key);
    if (found == metadata.end()) return "";
    return std::string(found->second.data(), found->second.size());
  }

  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    do {
      if (gone_ && gone_()) context_.TryCancel();
    } while (queue_.AsyncNext(&tag, &ok,
                              absl::ToChronoTime(absl::Now() + kLookEvery)) ==
             grpc::CompletionQueue::TIMEOUT);
    return ok;
  }

  const std::function<bool()> gone_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
};

// The request's bytes on the wire; takes the body out of `call`.
absl::StatusOr<grpc::ByteBuffer> TakeRequest(const MethodDescriptor* method,
                                             JsonCall* call) {
  const std::string body = std::move(call->body);
  const int64_t length = static_cast<int64_t>(body.size());
  const absl::Status held = call->share->Hold(length + ParsedBytes(body));
  if (!held.ok()) return held;
  const auto request = ParseRequest(method, body);
  if (!request.ok()) return request.status();
  const auto parsed = static_cast<int64_t>((*request)->SpaceUsedLong());
  grpc::ByteBuffer bytes;
  bool own = false;
  const grpc::Status serialized =
      grpc::GenericSerialize<grpc::ProtoBufferWriter, Message>(**request,
                                                               &bytes, &own);
  if (!serialized.ok()) {
    return absl::InternalError(serialized.error_message());
  }
  // The service parses it again, while the bytes wait here. No more than
  // before, as what is parsed was bounded.
  const absl::Status kept =
      call->share->Hold(static_cast<int64_t>(bytes.Length()) + parsed);
  if (!kept.ok()) return kept;
  return bytes;
}

HttpAnswer AnswerOf(Collector* collector, bool frames, int64_t most,
                    ByteBudget::Share* share) {
  const absl::StatusOr<Message*> answer = collector->Finish();
  if (!answer.ok()) return ErrorAnswer(answer.status());
  absl::StatusOr<std::string> body =
      frames ? ToFrames(*answer, most, share) : ToJson(**answer, most, share);
  if (!body.ok()) return ErrorAnswer(body.status());
  HttpAnswer result;
  result.type = frames ? kBytesType : kJsonType;
  result.body = *std::move(body);
  return result;
}

}  // namespace

JsonApi::JsonApi(std::shared_ptr<grpc::Channel> channel,
                 int64_t max_answer_bytes)
    : channel_(std::move(channel)), max_answer_bytes_(max_answer_bytes) {}

const MethodDescriptor* JsonApi::Find(absl::string_view service,
                                      absl::string_view method) {
  if (std::find(std::begin(kJsonServices), std::end(kJsonServices), service) ==
      std::end(kJsonServices)) {
    return nullptr;
  }
  const auto* found =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
          absl::StrCat(kPackage, service, ".", method));
  const bool here = found != nullptr && !found->client_streaming() &&
                    found->full_name() != kEndless &&
                    found->full_name() != kFile;
  return here ? found : nullptr;
}

HttpAnswer JsonApi::Call(JsonCall call) const {
  const MethodDescriptor* method = Find(call.service, call.method);
  if (method == nullptr) {
    return ErrorAnswer(
        absl::NotFoundError("no such method; /v1/openapi.json has them all"));
  }
  const absl::StatusOr<grpc::ByteBuffer> request = TakeRequest(method, &call);
  if (!request.ok()) return ErrorAnswer(request.status());
  Collector collector(method, max_answer_bytes_, call.share);
  Exchange exchange(channel_, call);
  const absl::Status status = exchange.Run(
      absl::StrCat("/", method->service()->full_name(), "/", method->name()),
      *request, &collector);
  HttpAnswer result = status.ok() ? AnswerOf(&collector, call.frames,
                                             max_answer_bytes_, call.share)
                                  : ErrorAnswer(status);
  if (const std::string trace = exchange.Trace(); !trace.empty()) {
    absl::StrAppend(&result.headers, "traceparent: ", trace, "\r\n");
  }
  return result;
}

}  // namespace cupola::http
