#include "server/http/json_api.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/chunk_assembler.h"
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
constexpr size_t kMaxMetadataValue = 1024;

std::unique_ptr<Message> NewMessage(
    const google::protobuf::Descriptor* descriptor) {
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(descriptor)
          ->New());
}

// gRPC ends the process over metadata that is not printable.
bool FitsMetadata(const std::string& text) {
  return !text.empty() && text.size() <= kMaxMetadataValue &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return c >= 0x20 && c <= 0x7e; });
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
  Collector(const MethodDescriptor* method, int64_t max_bytes)
      : max_bytes_(max_bytes), message_(NewMessage(method->output_type())) {
    const auto* type = method->output_type();
    header_ = type->FindFieldByName("header");
    chunk_ = type->FindFieldByName("chunk");
    if (header_ == nullptr || chunk_ == nullptr) header_ = chunk_ = nullptr;
  }

  absl::Status Add(grpc::ByteBuffer* bytes) {
    bytes_ += static_cast<int64_t>(bytes->Length());
    if (bytes_ > max_bytes_) return TooLarge(bytes_);
    std::unique_ptr<Message> part(message_->New());
    const grpc::Status parsed =
        grpc::GenericDeserialize<grpc::ProtoBufferReader, Message>(bytes,
                                                                   part.get());
    if (!parsed.ok()) return absl::DataLossError(parsed.error_message());
    const auto* reflection = part->GetReflection();
    if (chunk_ == nullptr || reflection->HasField(*part, header_)) {
      message_->MergeFrom(*part);
      return CheckAnnounced();
    }
    std::string scratch;
    chunks_ += reflection->GetStringReference(*part, chunk_, &scratch);
    return absl::OkStatus();
  }

  // The whole answer; the collector keeps it.
  absl::StatusOr<Message*> Finish() {
    if (header_ == nullptr) return message_.get();
    Message* header =
        message_->GetReflection()->MutableMessage(message_.get(), header_);
    auto assembler =
        ChunkAssembler::Create(header, static_cast<int64_t>(chunks_.size()));
    if (!assembler.ok()) return assembler.status();
    absl::Status status = assembler->Append(chunks_);
    if (status.ok()) status = assembler->Finish();
    chunks_ = std::string();
    if (!status.ok()) return status;
    return header;
  }

 private:
  absl::Status TooLarge(int64_t bytes) const {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the answer has ", bytes, " bytes; accepted over HTTP: ", max_bytes_,
        "; gRPC has no such limit"));
  }

  // The header tells how much is to come.
  absl::Status CheckAnnounced() const {
    if (header_ == nullptr) return absl::OkStatus();
    const Message& header =
        message_->GetReflection()->GetMessage(*message_, header_);
    const auto* field = header.GetDescriptor()->FindFieldByName("provenance");
    if (field == nullptr) return absl::OkStatus();
    const Message& provenance =
        header.GetReflection()->GetMessage(header, field);
    const int64_t announced = provenance.GetReflection()->GetInt64(
        provenance,
        provenance.GetDescriptor()->FindFieldByName("chunked_bytes"));
    return announced > max_bytes_ ? TooLarge(announced) : absl::OkStatus();
  }

  const int64_t max_bytes_;
  const std::unique_ptr<Message> message_;
  const FieldDescriptor* header_ = nullptr;
  const FieldDescriptor* chunk_ = nullptr;
  int64_t bytes_ = 0;
  std::string chunks_;
};

// One call, from the request's bytes to the last of the answer's, on this
// thread.
class Exchange {
 public:
  Exchange(const std::shared_ptr<grpc::Channel>& channel, const JsonCall& call)
      : stub_(channel) {
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
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                        status.error_message());
  }

  // Negative: the server names no delay.
  long RetryMilliseconds() const {
    const auto& trailer = context_.GetServerTrailingMetadata();
    const auto found = trailer.find("grpc-retry-pushback-ms");
    long delay = -1;
    if (found == trailer.end() ||
        !absl::SimpleAtoi(
            absl::string_view(found->second.data(), found->second.size()),
            &delay)) {
      return -1;
    }
    return delay;
  }

 private:
  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
};

}  // namespace

JsonApi::JsonApi(std::shared_ptr<grpc::Channel> channel,
                 int64_t max_answer_bytes)
    : channel_(std::move(channel)), max_answer_bytes_(max_answer_bytes) {}

const MethodDescriptor* JsonApi::Find(absl::string_view service,
                                      absl::string_view method) {
  const auto* found =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
          absl::StrCat(kPackage, service, ".", method));
  const bool here = found != nullptr && !found->client_streaming() &&
                    found->full_name() != kEndless &&
                    found->full_name() != kFile;
  return here ? found : nullptr;
}

HttpAnswer JsonApi::Call(const JsonCall& call) const {
  const MethodDescriptor* method = Find(call.service, call.method);
  if (method == nullptr) {
    return ErrorAnswer(
        absl::NotFoundError("no such method; /v1/openapi.json has them all"));
  }
  grpc::ByteBuffer bytes;
  {
    const auto request = ParseRequest(method, call.body);
    if (!request.ok()) return ErrorAnswer(request.status());
    bool own = false;
    const grpc::Status serialized =
        grpc::GenericSerialize<grpc::ProtoBufferWriter, Message>(**request,
                                                                 &bytes, &own);
    if (!serialized.ok()) {
      return ErrorAnswer(absl::InternalError(serialized.error_message()));
    }
  }
  Collector collector(method, max_answer_bytes_);
  Exchange exchange(channel_, call);
  const absl::Status status = exchange.Run(
      absl::StrCat("/", method->service()->full_name(), "/", method->name()),
      bytes, &collector);
  if (!status.ok()) return ErrorAnswer(status, exchange.RetryMilliseconds());
  const absl::StatusOr<Message*> answer = collector.Finish();
  if (!answer.ok()) return ErrorAnswer(answer.status());
  absl::StatusOr<std::string> body =
      call.frames ? ToFrames(*answer) : ToJson(**answer);
  if (!body.ok()) return ErrorAnswer(body.status());
  HttpAnswer result;
  result.type = call.frames ? kBytesType : kJsonType;
  result.body = *std::move(body);
  return result;
}

}  // namespace cupola::http
