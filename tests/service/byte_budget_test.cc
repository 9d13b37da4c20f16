#include "server/http/byte_budget.h"

#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/http/bounded_text.h"
#include "server/http/http_answer.h"

namespace cupola::http {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ByteBudget, SharesAddUp) {
  ByteBudget budget(100);
  ByteBudget::Share first(&budget);
  EXPECT_TRUE(first.Hold(60).ok());
  {
    ByteBudget::Share second(&budget);
    EXPECT_TRUE(second.Hold(40).ok());
    const absl::Status refused = second.Hold(41);
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(second.held(), 40);
    const HttpAnswer answer = ErrorAnswer(refused);
    EXPECT_EQ(answer.code, 429);
    EXPECT_THAT(answer.body, AllOf(HasSubstr("41"), HasSubstr("60"),
                                   HasSubstr("100"), HasSubstr("retryDelay")));
    EXPECT_THAT(answer.headers, HasSubstr("Retry-After: 1\r\n"));
    EXPECT_TRUE(first.Hold(59).ok());
    EXPECT_TRUE(second.Hold(41).ok());
  }
  EXPECT_TRUE(first.Hold(100).ok());
  // Coming again would not help.
  const absl::Status never = first.Hold(101);
  EXPECT_EQ(never.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(ErrorAnswer(never).body, AllOf(HasSubstr("101"), HasSubstr("100"),
                                             Not(HasSubstr("retryDelay"))));
  EXPECT_EQ(first.held(), 100);
  EXPECT_TRUE(first.Hold(0).ok());
}

// Writes as Protobuf does: fills what it gets and gives the rest back.
std::string Fill(BoundedText* text, size_t bytes) {
  std::string wanted;
  for (size_t i = 0; i < bytes; ++i) wanted += static_cast<char>('a' + i % 26);
  size_t written = 0;
  void* data = nullptr;
  int size = 0;
  while (written < bytes && text->Next(&data, &size)) {
    const size_t piece = std::min(bytes - written, static_cast<size_t>(size));
    std::memcpy(data, wanted.data() + written, piece);
    written += piece;
    if (static_cast<size_t>(size) > piece) {
      text->BackUp(static_cast<int>(size - piece));
    }
  }
  return wanted;
}

TEST(BoundedText, HoldsWhatItAllocates) {
  ByteBudget budget(10 << 20);
  ByteBudget::Share share(&budget);
  BoundedText text(1000, 1 << 20, &share);
  EXPECT_EQ(share.held(), 1000);
  const std::string wanted = Fill(&text, 300'000);
  EXPECT_TRUE(text.status().ok()) << text.status();
  EXPECT_EQ(text.ByteCount(), 300'000);
  EXPECT_GE(share.held(), 300'000);
  EXPECT_TRUE(std::move(text).Take() == wanted);
}

TEST(BoundedText, EndsAtItsLimit) {
  ByteBudget budget(10 << 20);
  ByteBudget::Share share(&budget);
  BoundedText just(0, 50'000, &share);
  const std::string wanted = Fill(&just, 50'000);
  EXPECT_TRUE(just.status().ok()) << just.status();
  EXPECT_TRUE(std::move(just).Take() == wanted);
  BoundedText more(0, 50'000, &share);
  Fill(&more, 50'001);
  EXPECT_EQ(more.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(more.status().message()), HasSubstr("50000"));
}

TEST(BoundedText, EndsWithTheBudget) {
  ByteBudget budget(100'000);
  ByteBudget::Share share(&budget);
  BoundedText text(0, 1 << 20, &share);
  Fill(&text, 200'000);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_LE(share.held(), 100'000);
}

}  // namespace
}  // namespace cupola::http
