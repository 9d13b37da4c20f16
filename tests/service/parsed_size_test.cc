#include "server/service/parsed_size.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cupola/v1/admin.pb.h"
#include "cupola/v1/analysis.pb.h"
#include "cupola/v1/catalog.pb.h"
#include "cupola/v1/jobs.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "gtest/gtest.h"
#include "server/service/wire.h"

namespace cupola::service {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FileDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::MessageFactory;
using ::testing::HasSubstr;

int64_t SizeOf(const std::string& bytes, const Descriptor* type) {
  google::protobuf::io::ArrayInputStream input(bytes.data(),
                                               static_cast<int>(bytes.size()));
  return ParsedSize(&input, type);
}

grpc::ByteBuffer Buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Repeat(const std::string& piece, size_t bytes) {
  std::string all;
  all.reserve(bytes);
  while (all.size() + piece.size() <= bytes) all += piece;
  return all;
}

std::unique_ptr<Message> New(const Descriptor* type) {
  return std::unique_ptr<Message>(
      MessageFactory::generated_factory()->GetPrototype(type)->New());
}

void CheckOwnSize(const Descriptor* type) {
  if (type->options().map_entry()) return;
  // The pointer to it, in an array that may be twice as long as it is full, and
  // what the allocator adds.
  constexpr int64_t kPlace = 2 * sizeof(void*) + 32;
  EXPECT_LE(static_cast<int64_t>(New(type)->SpaceUsedLong()) + kPlace,
            kParsedMessageBytes)
      << type->full_name();
  for (int i = 0; i < type->nested_type_count(); ++i) {
    CheckOwnSize(type->nested_type(i));
  }
}

TEST(ParsedSize, EveryMessageFits) {
  for (const FileDescriptor* file :
       {v1::FeaturesRequest::descriptor()->file(),
        v1::LoadRequest::descriptor()->file(), v1::JobId::descriptor()->file(),
        v1::GetServerInfoRequest::descriptor()->file()}) {
    std::vector<const FileDescriptor*> files = {file};
    for (int i = 0; i < file->dependency_count(); ++i) {
      if (file->dependency(i)->package() == file->package()) {
        files.push_back(file->dependency(i));
      }
    }
    for (const FileDescriptor* each : files) {
      for (int i = 0; i < each->message_type_count(); ++i) {
        CheckOwnSize(each->message_type(i));
      }
    }
  }
}

// Bytes that become as much as possible, and what they become.
TEST(ParsedSize, IsAnUpperBound) {
  const std::string empty_prompt("\x0a\x00", 2);         // Prompts.prompts
  const std::string text_prompt("\x0a\x02\x0a\x00", 4);  // with an empty text
  const std::string ids("\x0a\x06\x12\x04\x0a\x02\x01\x01", 8);
  const std::string unknown_text("\xfa\x01\x00", 3);  // field 31
  const std::string unknown_number("\xf8\x01\x01", 3);
  const std::string unknown_group("\xfb\x01\x08\x01\x08\x01\xfc\x01", 8);
  for (const std::string& piece : {empty_prompt, text_prompt, ids, unknown_text,
                                   unknown_number, unknown_group}) {
    const std::string bytes = Repeat(piece, 60'000);
    v1::Prompts prompts;
    ASSERT_TRUE(prompts.ParseFromString(bytes));
    EXPECT_GE(SizeOf(bytes, v1::Prompts::descriptor()),
              static_cast<int64_t>(prompts.SpaceUsedLong()))
        << piece.size();
  }
  v1::TokenIds packed;
  for (int i = 0; i < 50'000; ++i) packed.add_ids(1);
  EXPECT_GE(SizeOf(packed.SerializeAsString(), v1::TokenIds::descriptor()),
            static_cast<int64_t>(packed.SpaceUsedLong()));
  std::string one_by_one;
  for (int i = 0; i < 50'000; ++i) one_by_one += "\x08\x01";
  ASSERT_TRUE(packed.ParseFromString(one_by_one));
  EXPECT_GE(SizeOf(one_by_one, v1::TokenIds::descriptor()),
            static_cast<int64_t>(packed.SpaceUsedLong()));
}

// It is no reason to refuse large arrays.
TEST(ParsedSize, OfATensorIsAboutItsBytes) {
  v1::FeaturesRequest request;
  request.mutable_inputs()->set_data(std::string(30 << 20, 'x'));
  EXPECT_LT(SizeOf(request.SerializeAsString(), request.GetDescriptor()),
            (60 << 20) + 10'000);
  v1::FeaturesRequest back;
  EXPECT_TRUE(ParseMessage(Buffer(request.SerializeAsString()), &back).ok());
}

TEST(ParsedSize, BytesThatBecomeGigabytesAreRefused) {
  // FeaturesRequest.prompts (field 2) of 16 million empty prompts.
  const std::string inner = Repeat(std::string("\x0a\x00", 2), 31 << 20);
  v1::FeaturesRequest request;
  request.mutable_prompts();
  std::string bytes = "\x12";
  for (size_t length = inner.size(); length > 0; length >>= 7) {
    bytes += static_cast<char>((length & 0x7f) | (length > 0x7f ? 0x80 : 0));
  }
  const absl::Status refused = ParseMessage(Buffer(bytes + inner), &request);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()),
              ::testing::AllOf(HasSubstr(std::to_string(kMaxParsedBytes)),
                               HasSubstr("bytes of memory")));
  EXPECT_LT(request.SpaceUsedLong(), 1000u);
}

TEST(ParsedSize, GarbageIsPassedOver) {
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes(random() % 200, '\0');
    for (char& c : bytes) c = static_cast<char>(random() % 32);
    v1::RunRequest request;
    if (!request.ParseFromString(bytes)) {
      SizeOf(bytes, v1::RunRequest::descriptor());
      continue;
    }
    EXPECT_GE(SizeOf(bytes, v1::RunRequest::descriptor()),
              static_cast<int64_t>(request.SpaceUsedLong()));
  }
}

}  // namespace
}  // namespace cupola::service
