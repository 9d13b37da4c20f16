#include "tests/stress/message_mutator.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

namespace cupola::testing {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The message and all that is set within it.
void Collect(Message* message, std::vector<Message*>* all) {
  all->push_back(message);
  std::vector<const FieldDescriptor*> fields;
  const auto* reflection = message->GetReflection();
  reflection->ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      Collect(reflection->MutableMessage(message, field), all);
      continue;
    }
    const int size = reflection->FieldSize(*message, field);
    for (int i = 0; i < std::min(size, 20); ++i) {
      Collect(reflection->MutableRepeatedMessage(message, field, i), all);
    }
  }
}

// What grows at each change must not grow without end.
constexpr size_t kMaxBytes = 1 << 18;

}  // namespace

int64_t MessageMutator::Integer() {
  static constexpr int64_t kValues[] = {
      0,          -1,         1,          2,
      127,        128,        129,        256,
      257,        511,        512,        513,
      65535,      1 << 20,    2147483647, -2147483648LL,
      4294967295, 4294967296, 1LL << 53,  1LL << 62,
      -2,         -512,       1000000,    std::numeric_limits<int64_t>::max(),
      7,          31,         32,         std::numeric_limits<int64_t>::min(),
  };
  if (Chance(30)) return static_cast<int64_t>(Below(200));
  return kValues[Below(std::size(kValues))];
}

double MessageMutator::Real() {
  static constexpr double kValues[] = {
      0,
      -0.0,
      1,
      -1,
      0.5,
      1e-300,
      1e-45,
      3.4e38,
      3.5e38,
      1e308,
      -1e308,
      std::numeric_limits<double>::infinity(),
      -std::numeric_limits<double>::infinity(),
      std::numeric_limits<double>::quiet_NaN(),
  };
  if (Chance(40)) return static_cast<double>(Below(1000)) / 100;
  return kValues[Below(std::size(kValues))];
}

std::string MessageMutator::Text() {
  static const std::string kValues[] = {
      "",
      "tiny",
      "tiny/sae",
      "tiny/sae:in",
      "tiny/sae:out",
      "tiny/out",
      "broken",
      "broken/sae",
      "nothing",
      "../../etc/passwd",
      "/etc/passwd",
      "tiny/../tiny",
      "W_E",
      "blocks.0.attn.W_Q",
      "W_dec",
      "hook_embed",
      "blocks.1.hook_resid_pre",
      "blocks.1.attn.hook_pattern",
      "blocks.99.hook_resid_pre",
      "blocks.-1.hook_resid_pre",
      std::string(1, '\0'),
      "a\nb\x01",
      "\xc3\xa9\xf0\x9f\x98\x80",
      "%s%n%d",
  };
  if (Chance(5)) return std::string(Below(1 << 12), 'x');
  return kValues[Below(std::size(kValues))];
}

void MessageMutator::ChangeSingular(Message* message,
                                    const FieldDescriptor* field) {
  const auto* reflection = message->GetReflection();
  if (Chance(20)) {
    reflection->ClearField(message, field);
    return;
  }
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(message, field,
                                  static_cast<int32_t>(Integer()));
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(message, field, Integer());
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(message, field,
                                   static_cast<uint32_t>(Integer()));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(message, field,
                                   static_cast<uint64_t>(Integer()));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(message, field, Real());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->SetFloat(message, field, static_cast<float>(Real()));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(message, field, Chance(50));
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnumValue(
          message, field, static_cast<int>(Chance(80) ? Below(9) : Integer()));
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string text = Text();
      if (field->type() == FieldDescriptor::TYPE_BYTES && Chance(50)) {
        text = reflection->GetString(*message, field);
        text.resize(Below(text.size() + 9));
      }
      return reflection->SetString(message, field, std::move(text));
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      Message* made = reflection->MutableMessage(message, field);
      if (made->GetDescriptor()->field_count() > 0) {
        const auto* inner = made->GetDescriptor()->field(static_cast<int>(Below(
            static_cast<uint64_t>(made->GetDescriptor()->field_count()))));
        if (inner->is_repeated()) {
          Append(made, inner);
        } else if (inner->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
          ChangeSingular(made, inner);
        }
      }
      return;
    }
  }
}

void MessageMutator::Append(Message* message, const FieldDescriptor* field) {
  const auto* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->AddInt32(message, field,
                                  static_cast<int32_t>(Integer()));
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->AddInt64(message, field, Integer());
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->AddUInt32(message, field,
                                   static_cast<uint32_t>(Integer()));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->AddUInt64(message, field,
                                   static_cast<uint64_t>(Integer()));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->AddDouble(message, field, Real());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->AddFloat(message, field, static_cast<float>(Real()));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->AddBool(message, field, Chance(50));
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->AddEnumValue(message, field,
                                      static_cast<int>(Below(9)));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->AddString(message, field, Text());
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const int size = reflection->FieldSize(*message, field);
      Message* added = reflection->AddMessage(message, field);
      if (size > 0 && Chance(70)) {
        added->CopyFrom(reflection->GetRepeatedMessage(
            *message, field,
            static_cast<int>(Below(static_cast<uint64_t>(size)))));
      }
      return;
    }
  }
}

void MessageMutator::ChangeRepeated(Message* message,
                                    const FieldDescriptor* field) {
  const auto* reflection = message->GetReflection();
  const auto size =
      static_cast<uint64_t>(reflection->FieldSize(*message, field));
  switch (Below(5)) {
    case 0:
      return reflection->ClearField(message, field);
    case 1:
      if (size > 0) reflection->RemoveLast(message, field);
      return;
    case 2:
      if (size > 1) {
        reflection->SwapElements(message, field, static_cast<int>(Below(size)),
                                 static_cast<int>(Below(size)));
      }
      return;
    case 3: {
      const uint64_t count = Chance(10) ? Below(600) : Below(5);
      for (uint64_t i = 0; i < count; ++i) Append(message, field);
      return;
    }
    default:
      return Append(message, field);
  }
}

void MessageMutator::ChangeMessage(Message* message) {
  std::vector<Message*> all;
  Collect(message, &all);
  Message* chosen = all[Below(all.size())];
  const auto* descriptor = chosen->GetDescriptor();
  if (descriptor->field_count() == 0) return;
  const FieldDescriptor* field = descriptor->field(static_cast<int>(
      Below(static_cast<uint64_t>(descriptor->field_count()))));
  if (field->is_repeated()) {
    ChangeRepeated(chosen, field);
  } else {
    ChangeSingular(chosen, field);
  }
}

void MessageMutator::ChangeBytes(std::string* bytes, const std::string& other) {
  const size_t at = Below(bytes->size() + 1);
  const size_t length = Below(bytes->size() - at + 1);
  switch (Below(7)) {
    case 0:  // a bit
      if (at < bytes->size()) (*bytes)[at] ^= static_cast<char>(1 << Below(8));
      return;
    case 1:  // a byte
      if (at < bytes->size()) (*bytes)[at] = static_cast<char>(Below(256));
      return;
    case 2:  // cut short
      bytes->resize(at);
      return;
    case 3:  // a piece taken out
      bytes->erase(at, length);
      return;
    case 4:  // a piece twice
      bytes->insert(at, bytes->substr(at, length));
      return;
    case 5: {  // a piece of another message
      const size_t from = Below(other.size() + 1);
      bytes->insert(at, other.substr(from, Below(other.size() - from + 1)));
      return;
    }
    default:  // a length, or another number, that is far too large
      bytes->insert(at, Chance(50)
                            ? "\xff\xff\xff\xff\x07"
                            : "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  }
}

std::string MessageMutator::Mutate(const Message& message,
                                   const std::string& other) {
  std::string bytes;
  if (Chance(70)) {
    std::unique_ptr<Message> changed(message.New());
    changed->CopyFrom(message);
    const uint64_t count = 1 + Below(Chance(20) ? 12 : 2);
    for (uint64_t i = 0; i < count; ++i) ChangeMessage(changed.get());
    changed->SerializePartialToString(&bytes);
  } else {
    message.SerializePartialToString(&bytes);
  }
  if (bytes.empty() || Chance(40)) {
    const uint64_t count = 1 + Below(Chance(20) ? 12 : 2);
    for (uint64_t i = 0; i < count; ++i) ChangeBytes(&bytes, other);
  }
  if (bytes.size() > kMaxBytes) bytes.resize(kMaxBytes);
  return bytes;
}

}  // namespace cupola::testing
