#include "server/model/tokenizer/regex.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/tokenizer/split.h"

namespace cupola::model::tokenizer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> FindAll(const std::string& pattern,
                                 const std::string& text) {
  const auto regex = Regex::Compile(pattern);
  if (!regex.ok()) return {"! " + std::string(regex.status().message())};
  std::vector<Match> matches;
  const absl::Status status = (*regex)->FindAll(text, &matches);
  if (!status.ok()) return {"! " + std::string(status.message())};
  std::vector<std::string> found;
  for (const Match& match : matches) {
    found.push_back(text.substr(match.begin, match.end - match.begin));
  }
  return found;
}

// What differs between Oniguruma and PCRE2; each result was seen in the former.
TEST(RegexTest, HasOnigurumasClasses) {
  EXPECT_THAT(FindAll(R"(\s+)", "a\u180E \u0085b"), ElementsAre(" \u0085"));
  EXPECT_THAT(FindAll(R"(\w+)", "n\u0303²\u200D-ⓐ"),
              ElementsAre("n\u0303²", "ⓐ"));
  EXPECT_THAT(FindAll(R"([\w]+)", "n²"), ElementsAre("n"));
  EXPECT_THAT(FindAll(R"(\h+)", "xyz1aF g"), ElementsAre("1aF"));
  EXPECT_THAT(FindAll(R"(\v)", "\n\v\u2028"), ElementsAre("\v"));
  EXPECT_THAT(FindAll(R"(\p{L}+)", "a\U00031350b\u1C89"),
              ElementsAre("a\U00031350b\u1C89"));
  EXPECT_THAT(FindAll(R"(\p{Han}+)", "你、好"), ElementsAre("你", "好"));
  EXPECT_THAT(FindAll(R"(\p{^L}+|\P{Letter})", "a1-b"), ElementsAre("1-"));
}

TEST(RegexTest, HasNestedClasses) {
  EXPECT_THAT(FindAll("[^(\\s|[.,!…])]+", "ab,c d)e"),
              ElementsAre("ab", "c", "d", "e"));
  EXPECT_THAT(FindAll(R"([\p{L}&&[^a-c]]+)", "abxycz"), ElementsAre("xy", "z"));
  EXPECT_THAT(FindAll(R"([\W\d]+)", "a1 b"), ElementsAre("1 "));
  EXPECT_THAT(FindAll(R"([^\W_]+)", "a_b-c"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(FindAll("[]a-]+", "]a-b"), ElementsAre("]a-"));
}

TEST(RegexTest, HasOnigurumasGroupsAndQuantifiers) {
  EXPECT_THAT(FindAll("a(?i)b|C", "aBacC"), ElementsAre("aB", "ac"));
  EXPECT_THAT(FindAll("(?m:.)", "\n"), ElementsAre("\n"));
  EXPECT_THAT(FindAll("a{2}+b", "aaaab aab"), ElementsAre("aaaab", "aab"));
  EXPECT_THAT(FindAll("a{2}?b", "aab"), ElementsAre("aab"));
  EXPECT_THAT(FindAll("xa{,2}", "xaaa"), ElementsAre("xaa"));
  EXPECT_THAT(FindAll("a{x}", "a{x}"), ElementsAre("a{x}"));
  EXPECT_THAT(FindAll("a?+b", "aab"), ElementsAre("ab"));
  EXPECT_THAT(FindAll("^b", "a\nb"), ElementsAre("b"));
}

TEST(RegexTest, SkipsEmptyMatchesBehindAMatch) {
  EXPECT_THAT(FindAll("a*", "baac"), ElementsAre("", "aa", ""));
  EXPECT_THAT(FindAll("", "é"), ElementsAre("", ""));
}

TEST(RegexTest, RefusesWhatItCannotRead) {
  for (const char* const pattern :
       {"(",       ")",        "[",           "[a",    "[a-",
        "[z-a]",   "a\\",      "\\p{Nope}",   "\\p",   "\\1",
        "(?<n>a)", "(?x)a",    "\\X",         "\\K",   "[[:alpha:]]",
        "*a",      "(?<=a+)b", "\\x{110000}", "\\xE9", "(?"}) {
    const auto regex = Regex::Compile(pattern);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument)
        << pattern;
  }
  EXPECT_FALSE(Regex::Compile(std::string(100'000, 'a')).ok());
  EXPECT_FALSE(
      Regex::Compile(std::string(5000, '(') + std::string(5000, ')')).ok());
  EXPECT_FALSE(
      Regex::Compile(std::string(5000, '[') + std::string(5000, ']')).ok());
}

TEST(RegexTest, GivesUpUnderItsLimits) {
  const auto regex = Regex::Compile("(?:a|aa)+[bc]");
  ASSERT_TRUE(regex.ok());
  std::vector<Match> matches;
  const absl::Status status =
      (*regex)->FindAll(std::string(200, 'a'), &matches);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("(?:a|aa)+[bc]"));
}

TEST(RegexTest, TakesLongMatches) {
  const auto regex = Regex::Compile(R"(\s+(?!\S)|\s+|(?:\p{L}\p{M}*)+)");
  ASSERT_TRUE(regex.ok());
  std::vector<Match> matches;
  const std::string text =
      std::string(3'000'000, ' ') + std::string(200'000, 'x');
  const absl::Status status = (*regex)->FindAll(text, &matches);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(matches.size(), 3u);
  EXPECT_EQ(matches[2].end, text.size());
}

TEST(SplitTest, TreatsDelimitersAsAsked) {
  // "a--b-" with the delimiter "-".
  const std::vector<Match> dashes = {{1, 2}, {2, 3}, {4, 5}};
  const auto split = [&](const char* name, bool inverted) {
    std::vector<Match> parts;
    SplitAt(dashes, 5, inverted, *ParseSplitBehavior(name), &parts);
    std::string joined;
    for (const Match& part : parts) {
      joined +=
          std::string("a--b-").substr(part.begin, part.end - part.begin) + " ";
    }
    return joined;
  };
  EXPECT_EQ(split("Removed", false), "a b ");
  EXPECT_EQ(split("Removed", true), "- - - ");
  EXPECT_EQ(split("Isolated", false), "a - - b - ");
  EXPECT_EQ(split("MergedWithPrevious", false), "a- - b- ");
  EXPECT_EQ(split("MergedWithNext", false), "a - -b - ");
  EXPECT_EQ(split("MergedWithNext", true), "a- - b- ");
  EXPECT_EQ(split("Contiguous", false), "a -- b - ");
  EXPECT_FALSE(ParseSplitBehavior("Sideways").ok());
}

}  // namespace
}  // namespace cupola::model::tokenizer
