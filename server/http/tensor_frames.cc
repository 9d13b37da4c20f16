#include "server/http/tensor_frames.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cupola/v1/tensor.pb.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace cupola::http {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::ordered_json;

constexpr size_t kAlignment = 8;

size_t Padding(size_t size) {
  return (kAlignment - size % kAlignment) % kAlignment;
}

struct Frames {
  ordered_json tensors = ordered_json::array();
  std::vector<std::string> data;
  size_t size = 0;
};

void Take(v1::Tensor* tensor, const std::string& path, Frames* frames) {
  std::string data = std::move(*tensor->mutable_data());
  tensor->clear_data();
  frames->tensors.push_back(
      {{"path", path},
       {"dtype", v1::DType_Name(tensor->dtype())},
       {"shape",
        std::vector<int64_t>(tensor->shape().begin(), tensor->shape().end())},
       {"offset", frames->size},
       {"bytes", data.size()}});
  frames->size += data.size() + Padding(data.size());
  frames->data.push_back(std::move(data));
}

void Collect(Message* message, const std::string& path, Frames* frames) {
  if (message->GetDescriptor() == v1::Tensor::descriptor()) {
    Take(static_cast<v1::Tensor*>(message), path, frames);
    return;
  }
  const auto* reflection = message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(*message, &fields);  // ordered by number
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string name =
        path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    if (!field->is_repeated()) {
      Collect(reflection->MutableMessage(message, field), name, frames);
      continue;
    }
    const int count = reflection->FieldSize(*message, field);
    for (int i = 0; i < count; ++i) {
      Collect(reflection->MutableRepeatedMessage(message, field, i),
              absl::StrCat(name, "[", i, "]"), frames);
    }
  }
}

void AppendLittleEndian(uint64_t value, std::string* bytes) {
  for (int i = 0; i < 8; ++i) {
    bytes->push_back(static_cast<char>(value >> (8 * i)));
  }
}

}  // namespace

absl::StatusOr<std::string> ToJson(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return absl::InternalError(
        absl::StrCat("the answer is no JSON: ", status.ToString()));
  }
  return json;
}

absl::StatusOr<std::string> ToFrames(Message* message) {
  Frames frames;
  Collect(message, "", &frames);
  const absl::StatusOr<std::string> json = ToJson(*message);
  if (!json.ok()) return json.status();
  std::string header = absl::StrCat(
      "{\"message\":", *json, ",\"tensors\":", frames.tensors.dump(), "}");
  header.append(Padding(header.size()), ' ');
  std::string body;
  body.reserve(kAlignment + header.size() + frames.size);
  AppendLittleEndian(header.size(), &body);
  body += header;
  for (std::string& data : frames.data) {
    body += data;
    body.append(Padding(data.size()), '\0');
    data = std::string();
  }
  return body;
}

}  // namespace cupola::http
