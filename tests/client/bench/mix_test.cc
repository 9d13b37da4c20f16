#include "client/bench/mix.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::bench {
namespace {

using ::testing::HasSubstr;

MixOptions Plain() {
  MixOptions options;
  options.vocabulary = 50'000;
  options.seed = 5;
  return options;
}

Mix Make(const MixOptions& options) {
  auto mix = Mix::Create(options);
  EXPECT_TRUE(mix.ok()) << mix.status();
  return *std::move(mix);
}

TEST(MixTest, PromptsAreDistinctAndReproducible) {
  const Mix mix = Make(Plain()), again = Make(Plain());
  std::set<std::vector<uint32_t>> seen;
  for (int64_t i = 0; i < 5'000; ++i) {
    const Question question = mix.At(i);
    EXPECT_EQ(question.tokens, again.At(i).tokens);
    EXPECT_EQ(question.tokens.size(), 32u);
    EXPECT_FALSE(question.repeated);
    for (const uint32_t token : question.tokens) EXPECT_LT(token, 50'000u);
    seen.insert(question.tokens);
  }
  EXPECT_EQ(seen.size(), 5'000u);
  MixOptions other = Plain();
  other.seed = 6;
  EXPECT_NE(Make(other).At(0).tokens, mix.At(0).tokens);
}

TEST(MixTest, WeightsAndLengthsAreShares) {
  MixOptions options = Plain();
  options.weights = {6, 3, 1};
  options.lengths = {4, 16};
  const Mix mix = Make(options);
  std::map<std::string, int> kinds;
  std::map<size_t, int> lengths;
  for (int64_t i = 0; i < 20'000; ++i) {
    const Question question = mix.At(i);
    ++kinds[KindName(question.kind)];
    ++lengths[question.tokens.size()];
  }
  EXPECT_NEAR(kinds["features"], 12'000, 300);
  EXPECT_NEAR(kinds["ablate"], 6'000, 300);
  EXPECT_NEAR(kinds["run"], 2'000, 300);
  EXPECT_NEAR(lengths[4], 10'000, 300);
  EXPECT_NEAR(lengths[16], 10'000, 300);
}

TEST(MixTest, RepeatedQuestionsComeFromASmallSet) {
  MixOptions options = Plain();
  options.weights = {1, 1, 0};
  options.repeat = 0.25;
  options.repeated_prompts = 10;
  const Mix mix = Make(options);
  std::set<std::pair<Kind, std::vector<uint32_t>>> repeated, own;
  int count = 0;
  for (int64_t i = 0; i < 8'000; ++i) {
    const Question question = mix.At(i);
    count += question.repeated;
    (question.repeated ? repeated : own)
        .insert({question.kind, question.tokens});
  }
  EXPECT_NEAR(count, 2'000, 150);
  EXPECT_EQ(repeated.size(), 10u);
  EXPECT_EQ(own.size(), 8'000u - count);
}

TEST(MixTest, NothingOrEverythingRepeats) {
  MixOptions options = Plain();
  options.repeat = 1;
  const Mix mix = Make(options);
  for (int64_t i = 0; i < 1'000; ++i) EXPECT_TRUE(mix.At(i).repeated);
}

TEST(MixTest, BadOptionsAreNamed) {
  const auto refused = [](const char* field, auto change) {
    MixOptions options = Plain();
    change(options);
    const auto mix = Mix::Create(options);
    EXPECT_TRUE(absl::IsInvalidArgument(mix.status())) << field;
    EXPECT_THAT(std::string(mix.status().message()), HasSubstr(field));
    EXPECT_THAT(std::string(mix.status().message()), HasSubstr("accepted"));
  };
  refused("ablate", [](MixOptions& o) { o.weights[1] = -1; });
  refused("sum", [](MixOptions& o) { o.weights = {0, 0, 0}; });
  refused("lengths", [](MixOptions& o) { o.lengths.clear(); });
  refused("lengths", [](MixOptions& o) { o.lengths = {1}; });
  refused("repeat", [](MixOptions& o) { o.repeat = 1.5; });
  refused("repeat", [](MixOptions& o) { o.repeat = 0.0 / 0.0; });
  refused("repeated_prompts", [](MixOptions& o) { o.repeated_prompts = 0; });
  refused("vocabulary", [](MixOptions& o) { o.vocabulary = 1; });
}

}  // namespace
}  // namespace cupola::bench
