#include "server/service/parsed_size.h"

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"

namespace cupola::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// Of one field's value, with its place in an array that doubles as it grows: a
// message, a text, a number, and one of those that come many in a field.
constexpr int64_t kMessageBytes = kParsedMessageBytes;
constexpr int64_t kTextBytes = 80;
constexpr int64_t kNumberBytes = 32;
constexpr int64_t kPackedBytes = 16;
// Protobuf's own limit.
constexpr int kMaxDepth = 100;

class Walk {
 public:
  explicit Walk(CodedInputStream* input) : input_(input) {}

  // False: the bytes are no message.
  bool Message(const Descriptor* type, int depth) {
    if (depth > kMaxDepth) return false;
    size_ += kMessageBytes;
    while (const uint32_t tag = input_->ReadTag()) {
      if (!Field(type, tag, depth)) return false;
    }
    return input_->ConsumedEntireMessage();
  }

  int64_t size() const { return size_; }

 private:
  bool Field(const Descriptor* type, uint32_t tag, int depth) {
    const auto kind = WireFormatLite::GetTagWireType(tag);
    if (kind != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      const int before = input_->CurrentPosition();
      const bool whole = WireFormatLite::SkipField(input_, tag);
      // A group, which no message has, is kept, as all unknown fields are.
      const bool group = kind == WireFormatLite::WIRETYPE_START_GROUP;
      size_ += kNumberBytes *
               (group ? input_->CurrentPosition() - before + int64_t{1} : 1);
      return whole;
    }
    uint32_t length = 0;
    if (!input_->ReadVarint32(&length) || length > INT32_MAX) return false;
    const auto bytes = static_cast<int>(length);
    const FieldDescriptor* field =
        type->FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    if (field == nullptr ||
        field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      const bool numbers = field != nullptr && field->is_packable();
      size_ += numbers ? kPackedBytes * int64_t{length}
                       : kTextBytes + 2 * int64_t{length};
      return input_->Skip(bytes);
    }
    const auto limit = input_->PushLimit(bytes);
    const bool whole = Message(field->message_type(), depth + 1);
    input_->PopLimit(limit);
    return whole;
  }

  CodedInputStream* const input_;
  int64_t size_ = 0;
};

}  // namespace

int64_t ParsedSize(google::protobuf::io::ZeroCopyInputStream* bytes,
                   const Descriptor* type) {
  CodedInputStream input(bytes);
  Walk walk(&input);
  walk.Message(type, 0);
  return walk.size();
}

}  // namespace cupola::service
