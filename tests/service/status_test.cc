#include "server/service/status.h"

#include <string>

#include "absl/strings/cord.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::service {
namespace {

TEST(StatusTest, CodesAndMessagesAreKept) {
  const grpc::Status status =
      ToGrpcStatus(absl::NotFoundError("no such model"), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such model");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus(), nullptr).ok());
}

TEST(StatusTest, EveryAbslCodeHasItsName) {
  EXPECT_STREQ(CodeName(grpc::StatusCode::OK), "OK");
  EXPECT_STREQ(CodeName(grpc::StatusCode::INVALID_ARGUMENT),
               "INVALID_ARGUMENT");
  EXPECT_STREQ(CodeName(grpc::StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
  EXPECT_STREQ(CodeName(static_cast<grpc::StatusCode>(99)), "UNKNOWN");
  for (int code = 0; code <= 16; ++code) {
    EXPECT_EQ(absl::StatusCodeToString(static_cast<absl::StatusCode>(code)),
              CodeName(static_cast<grpc::StatusCode>(code)));
  }
}

TEST(StatusTest, LongMessagesAreCutBetweenCharacters) {
  // Two-byte characters, so that the limit falls inside one.
  std::string text = "x";
  while (text.size() <= kMaxStatusMessage) text += "\xc3\xa9";
  const grpc::Status status =
      ToGrpcStatus(absl::InvalidArgumentError(text), nullptr);
  const std::string& cut = status.error_message();
  EXPECT_LE(cut.size(), kMaxStatusMessage + 3);
  EXPECT_EQ(cut.substr(cut.size() - 3), "...");
  EXPECT_EQ((cut.size() - 3 - 1) % 2, 0u) << "half a character";
  EXPECT_EQ(text.compare(0, cut.size() - 3, cut, 0, cut.size() - 3), 0);
}

}  // namespace
}  // namespace cupola::service
