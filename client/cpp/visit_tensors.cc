#include "client/cpp/visit_tensors.h"

#include <vector>

#include "absl/strings/str_cat.h"

namespace cupola {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Visit = std::function<void(v1::Tensor*, const std::string&)>;

void VisitBelow(Message* message, const std::string& path, const Visit& visit) {
  if (message->GetDescriptor() == v1::Tensor::descriptor()) {
    visit(static_cast<v1::Tensor*>(message), path);
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
      VisitBelow(reflection->MutableMessage(message, field), name, visit);
      continue;
    }
    const int count = reflection->FieldSize(*message, field);
    for (int i = 0; i < count; ++i) {
      VisitBelow(reflection->MutableRepeatedMessage(message, field, i),
                 absl::StrCat(name, "[", i, "]"), visit);
    }
  }
}

}  // namespace

void VisitTensors(Message* message, const Visit& visit) {
  VisitBelow(message, "", visit);
}

}  // namespace cupola
