#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/prompt_resolution.h"

namespace cupola::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<std::vector<int32_t>> kPrompts = {{1, 2, 3}, {4, 5}};

TEST(ResolvePositions, AllByDefault) {
  auto rows = ResolvePositions({}, kPrompts);
  ASSERT_TRUE(rows.ok());
  EXPECT_THAT(*rows, ElementsAre(ElementsAre(0, 1, 2), ElementsAre(0, 1)));
}

TEST(ResolvePositions, NegativeOnesCountFromTheEndAndOrderIsKept) {
  auto rows =
      ResolvePositions({Positions::Kind::kEveryPrompt, {{-1, 0}}}, kPrompts);
  ASSERT_TRUE(rows.ok());
  EXPECT_THAT(*rows, ElementsAre(ElementsAre(2, 0), ElementsAre(1, 0)));
}

TEST(ResolvePositions, OneListPerPrompt) {
  auto rows =
      ResolvePositions({Positions::Kind::kPerPrompt, {{2}, {}}}, kPrompts);
  ASSERT_TRUE(rows.ok());
  EXPECT_THAT(*rows, ElementsAre(ElementsAre(2), ElementsAre()));
}

TEST(ResolvePositions, OutOfRangeNamesPositionPromptAndLength) {
  for (int64_t position : {2, -3}) {
    auto rows = ResolvePositions({Positions::Kind::kEveryPrompt, {{position}}},
                                 kPrompts);
    EXPECT_EQ(rows.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(rows.status().message()),
                AllOf(HasSubstr(std::to_string(position)),
                      HasSubstr("prompts[1]"), HasSubstr("2 tokens")));
  }
}

TEST(ResolvePositions, ListsMustMatchPrompts) {
  EXPECT_EQ(ResolvePositions({Positions::Kind::kPerPrompt, {{0}}}, kPrompts)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cupola::engine
