#include "server/http/openapi.h"

#include <cstdint>
#include <deque>
#include <set>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "nlohmann/json.hpp"
#include "server/http/http_answer.h"
#include "server/http/json_api.h"

namespace cupola::http {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;
using nlohmann::ordered_json;

constexpr char kDescription[] =
    "Questions about what happens inside language models. Messages are those "
    "of cupola.v1 in Protobuf's JSON mapping: names in lowerCamelCase, 64-bit "
    "integers as strings, bytes in base64, floats also as NaN, Infinity and "
    "-Infinity. Streamed answers come whole.";

// Messages inside others have dots in their names, as components may.
std::string SchemaName(const std::string& full_name) {
  return full_name.substr(std::string("cupola.v1.").size());
}

ordered_json Reference(const std::string& full_name) {
  return {{"$ref", "#/components/schemas/" + SchemaName(full_name)}};
}

ordered_json Integer(const char* format, int64_t least, uint64_t most) {
  return {{"type", "integer"},
          {"format", format},
          {"minimum", least},
          {"maximum", most}};
}

// 64 bits do not fit a JavaScript number.
ordered_json LongInteger(bool is_signed) {
  return {{"type", "string"},
          {"pattern",
           // As many digits as the largest has.
           is_signed ? "^(0|-?[1-9][0-9]{0,18})$" : "^(0|[1-9][0-9]{0,19})$"}};
}

ordered_json Number(const char* format) {
  return {{"oneOf",
           {{{"type", "number"}, {"format", format}},
            {{"type", "string"}, {"enum", {"NaN", "Infinity", "-Infinity"}}}}}};
}

ordered_json EnumSchema(const EnumDescriptor* type) {
  ordered_json names = ordered_json::array();
  for (int i = 0; i < type->value_count(); ++i) {
    names.push_back(type->value(i)->name());
  }
  return {{"type", "string"}, {"enum", std::move(names)}};
}

ordered_json ValueSchema(const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return Integer("int32", INT32_MIN, INT32_MAX);
    case FieldDescriptor::CPPTYPE_UINT32:
      return Integer("uint32", 0, UINT32_MAX);
    case FieldDescriptor::CPPTYPE_INT64:
      return LongInteger(true);
    case FieldDescriptor::CPPTYPE_UINT64:
      return LongInteger(false);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return Number("float");
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Number("double");
    case FieldDescriptor::CPPTYPE_BOOL:
      return {{"type", "boolean"}};
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumSchema(field->enum_type());
    case FieldDescriptor::CPPTYPE_STRING:
      if (field->type() == FieldDescriptor::TYPE_BYTES) {
        return {{"type", "string"}, {"format", "byte"}};
      }
      return {{"type", "string"}};
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return Reference(field->message_type()->full_name());
  }
  return {};
}

ordered_json FieldSchema(const FieldDescriptor* field) {
  if (field->is_map()) {
    return {{"type", "object"},
            {"additionalProperties",
             ValueSchema(field->message_type()->map_value())}};
  }
  if (!field->is_repeated()) return ValueSchema(field);
  return {{"type", "array"}, {"items", ValueSchema(field)}};
}

ordered_json MessageSchema(const Descriptor* message) {
  ordered_json properties = ordered_json::object();
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    properties[field->json_name()] = FieldSchema(field);
  }
  return {{"type", "object"},
          {"properties", std::move(properties)},
          {"additionalProperties", false}};
}

// The schemas of a message and of all that it holds.
void AddSchemas(const Descriptor* message, ordered_json* schemas) {
  std::deque<const Descriptor*> left = {message};
  while (!left.empty()) {
    const Descriptor* next = left.front();
    left.pop_front();
    const std::string name = SchemaName(next->full_name());
    if (schemas->contains(name)) continue;
    if (!next->options().map_entry()) (*schemas)[name] = MessageSchema(next);
    for (int i = 0; i < next->field_count(); ++i) {
      if (next->field(i)->message_type() != nullptr) {
        left.push_back(next->field(i)->message_type());
      }
    }
  }
}

// What a method answers: a header with its chunks is the header.
const Descriptor* AnswerOf(const MethodDescriptor* method) {
  const Descriptor* type = method->output_type();
  const FieldDescriptor* header = type->FindFieldByName("header");
  const bool streamed = header != nullptr && type->FindFieldByName("chunk");
  return streamed ? header->message_type() : type;
}

ordered_json Content(const char* type, ordered_json schema) {
  return {{type, {{"schema", std::move(schema)}}}};
}

ordered_json Responses(const Descriptor* answer) {
  ordered_json content = Content(kJsonType, Reference(answer->full_name()));
  content[kBytesType] = {
      {"schema", {{"type", "string"}, {"format", "binary"}}}};
  ordered_json responses = {
      {"200",
       {{"description",
         "The answer; as octet-stream: 8 bytes N (little-endian), N bytes of "
         "JSON {message, tensors: [{path, dtype, shape, offset, bytes}]}, then "
         "the tensors"},
        {"content", std::move(content)}}}};
  for (const int code :
       {400, 401, 403, 404, 405, 409, 413, 415, 429, 499, 500, 501, 503, 504}) {
    responses[absl::StrCat(code)] = {{"$ref", "#/components/responses/Error"}};
  }
  return responses;
}

ordered_json Operation(const MethodDescriptor* method) {
  return {
      {"operationId",
       absl::StrCat(method->service()->name(), "_", method->name())},
      {"tags", {method->service()->name()}},
      {"parameters",
       {{{"name", "Cupola-Timeout"},
         {"in", "header"},
         {"description", "seconds that the answer may take; 60"},
         {"schema",
          {{"type", "number"},
           {"minimum", 0},
           {"exclusiveMinimum", true},
           {"maximum", 86400}}}}}},
      {"requestBody",
       {{"required", true},
        {"content",
         Content(kJsonType, Reference(method->input_type()->full_name()))}}},
      {"responses", Responses(AnswerOf(method))}};
}

ordered_json ErrorSchema() {
  return {
      {"type", "object"},
      {"required", {"code", "message", "details"}},
      {"properties",
       {{"code", {{"type", "string"}}},
        {"message", {{"type", "string"}}},
        {"details",
         {{"type", "array"},
          {"items",
           {{"type", "object"},
            {"properties", {{"retryDelayMs", {{"type", "integer"}}}}}}}}}}}};
}

}  // namespace

std::string OpenApi() {
  ordered_json schemas = {{"Error", ErrorSchema()}};
  ordered_json paths = ordered_json::object();
  for (const char* name : kJsonServices) {
    const ServiceDescriptor* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
            absl::StrCat("cupola.v1.", name));
    if (service == nullptr) continue;
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor* method = service->method(i);
      if (JsonApi::Find(name, method->name()) == nullptr) continue;
      paths[absl::StrCat("/v1/", name, "/", method->name())] = {
          {"post", Operation(method)}};
      AddSchemas(method->input_type(), &schemas);
      AddSchemas(AnswerOf(method), &schemas);
    }
  }
  const ordered_json document = {
      {"openapi", "3.0.3"},
      {"info",
       {{"title", "Cupola"},
        {"version", "v1"},
        {"description", kDescription},
        {"license", {{"name", "Apache-2.0"}}}}},
      {"servers", {{{"url", "/"}}}},
      {"paths", std::move(paths)},
      {"components",
       {{"schemas", std::move(schemas)},
        {"responses",
         {{"Error",
           {{"description", "An error"},
            {"content",
             Content(kJsonType, {{"$ref", "#/components/schemas/Error"}})}}}}},
        {"securitySchemes",
         {{"token", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
      // With or without a token, as the server is started.
      {"security",
       {ordered_json::object(), {{"token", ordered_json::array()}}}}};
  return document.dump(1) + "\n";
}

}  // namespace cupola::http
