#include "server/http/tensor_frames.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/visit_tensors.h"
#include "cupola/v1/tensor.pb.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/type_resolver_util.h"
#include "nlohmann/json.hpp"
#include "server/http/bounded_text.h"

namespace cupola::http {
namespace {

using google::protobuf::Message;
using google::protobuf::util::TypeResolver;
using nlohmann::ordered_json;

constexpr char kTypes[] = "type.googleapis.com";
constexpr size_t kAlignment = 8;
// Of one tensor's entry in the JSON, and of what it is made from.
constexpr int64_t kEntryBytes = 2048;

size_t Padding(size_t size) {
  return (kAlignment - size % kAlignment) % kAlignment;
}

TypeResolver* Resolver() {
  static TypeResolver* const resolver =
      google::protobuf::util::NewTypeResolverForDescriptorPool(
          kTypes, google::protobuf::DescriptorPool::generated_pool());
  return resolver;
}

void AppendLittleEndian(uint64_t value, std::string* bytes) {
  for (int i = 0; i < 8; ++i) {
    bytes->push_back(static_cast<char>(value >> (8 * i)));
  }
}

}  // namespace

absl::StatusOr<std::string> ToJson(const Message& message, int64_t most,
                                   ByteBudget::Share* share) {
  const auto size = static_cast<int64_t>(message.ByteSizeLong());
  const absl::Status room = share->Hold(share->held() + size);
  if (!room.ok()) return room;
  const std::string binary = message.SerializeAsString();
  google::protobuf::io::ArrayInputStream input(binary.data(),
                                               static_cast<int>(binary.size()));
  // Base64 makes four bytes of three.
  BoundedText text(size / 3 * 4 + 4096, most, share);
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  const auto status = google::protobuf::util::BinaryToJsonStream(
      Resolver(),
      absl::StrCat(kTypes, "/", message.GetDescriptor()->full_name()), &input,
      &text, options);
  if (!text.status().ok()) return text.status();
  if (!status.ok()) {
    return absl::InternalError(
        absl::StrCat("the answer is no JSON: ", status.ToString()));
  }
  return std::move(text).Take();
}

absl::StatusOr<std::string> ToFrames(Message* message, int64_t most,
                                     ByteBudget::Share* share) {
  int64_t count = 0;
  VisitTensors(message, [&count](v1::Tensor*, const std::string&) { ++count; });
  absl::Status room = share->Hold(share->held() + count * kEntryBytes);
  if (!room.ok()) return room;

  ordered_json tensors = ordered_json::array();
  std::vector<std::string> data;
  size_t size = 0;
  VisitTensors(message, [&](v1::Tensor* tensor, const std::string& path) {
    std::string bytes = std::move(*tensor->mutable_data());
    tensor->clear_data();
    tensors.push_back({{"path", path},
                       {"dtype", v1::DType_Name(tensor->dtype())},
                       {"shape", std::vector<int64_t>(tensor->shape().begin(),
                                                      tensor->shape().end())},
                       {"offset", size},
                       {"bytes", bytes.size()}});
    size += bytes.size() + Padding(bytes.size());
    data.push_back(std::move(bytes));
  });
  const absl::StatusOr<std::string> json = ToJson(*message, most, share);
  if (!json.ok()) return json.status();
  std::string header = absl::StrCat("{\"message\":", *json,
                                    ",\"tensors\":", tensors.dump(), "}");
  header.append(Padding(header.size()), ' ');

  const size_t whole = kAlignment + header.size() + size;
  if (whole > static_cast<size_t>(most)) return BodyTooLarge(most);
  room = share->Hold(share->held() + static_cast<int64_t>(whole));
  if (!room.ok()) return room;
  std::string body;
  body.reserve(whole);
  AppendLittleEndian(header.size(), &body);
  body += header;
  for (std::string& bytes : data) {
    body += bytes;
    body.append(Padding(bytes.size()), '\0');
    bytes = std::string();
  }
  return body;
}

}  // namespace cupola::http
