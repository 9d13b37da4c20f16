#include "server/service/wire.h"

#include <random>
#include <string>

#include "cupola/v1/analysis.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/support/slice.h"
#include "gtest/gtest.h"

namespace cupola::service {
namespace {

using ::testing::HasSubstr;

grpc::ByteBuffer Buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

TEST(WireTest, RoundTrip) {
  v1::FeaturesRequest request;
  request.set_dictionary("d");
  request.mutable_prompts()->add_prompts()->set_text("h\xc3\xa9llo");
  v1::FeaturesRequest back;
  ASSERT_TRUE(ParseMessage(SerializeMessage(request), &back).ok());
  EXPECT_EQ(back.SerializeAsString(), request.SerializeAsString());
}

TEST(WireTest, AnEmptyMessageIsAMessage) {
  v1::FeaturesRequest back;
  EXPECT_TRUE(
      ParseMessage(SerializeMessage(v1::FeaturesRequest()), &back).ok());
}

TEST(WireTest, TextThatIsNotUtf8NamesItsField) {
  // Prompt.text (field 1) of two bytes that no UTF-8 text holds.
  v1::Prompt prompt;
  const absl::Status status =
      ParseMessage(Buffer(std::string("\x0a\x02\xff\xfe", 4)), &prompt);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(status.message()),
      ::testing::AllOf(HasSubstr("cupola.v1.Prompt.text"), HasSubstr("UTF-8")));
}

TEST(WireTest, GarbageIsInvalid) {
  v1::FeaturesRequest request;
  const absl::Status status = ParseMessage(Buffer("\x0a\x7fshort"), &request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("cupola.v1.FeaturesRequest"));
}

TEST(WireTest, RandomBytesNeverCrash) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    v1::ReconstructRequest request;
    const absl::Status status = ParseMessage(Buffer(bytes), &request);
    EXPECT_TRUE(status.ok() ||
                status.code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace cupola::service
