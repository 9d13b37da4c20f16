#include "server/model/json.h"

#include <sys/stat.h>

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/tokenizer/temp_folder.h"

namespace cupola::model {
namespace {

using ::testing::HasSubstr;

TEST(ParseJsonTest, ReadsAnObject) {
  const auto json = ParseJson(R"({"a": [1, "x]}{", null]})", "file");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"][1], "x]}{");
}

TEST(ParseJsonTest, NamesTheFileAndTheByte) {
  const auto json = ParseJson(R"({"a": nope})", "the file");
  EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(json.status().message()),
              HasSubstr("the file: not JSON at byte 8"));
}

TEST(ParseJsonTest, RefusesWhatIsNotJson) {
  for (const char* const text : {"", " ", "{", "[1,]", "\"\xFF\"", "nan",
                                 "{\"a\":1} x", "\"\\ud800\"", "01"}) {
    EXPECT_EQ(ParseJson(text, "f").status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(ParseJsonTest, TakesLevelsUpToTheLimit) {
  const auto nested = [](int levels) {
    return std::string(levels, '[') + std::string(levels, ']');
  };
  EXPECT_TRUE(ParseJson(nested(64), "f").ok());
  const auto status = ParseJson(nested(65), "f").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at byte 64"));
  // A depth that no recursive reader survives.
  EXPECT_FALSE(ParseJson(std::string(10'000'000, '['), "f").ok());
  // Brackets in strings are no levels.
  EXPECT_TRUE(ParseJson('"' + std::string(1000, '[') + '"', "f").ok());
  EXPECT_TRUE(ParseJson("[\"\\\"" + std::string(1000, '[') + "\"]", "f").ok());
}

TEST(ReadFileTest, GivesTheBytes) {
  const TempFolder folder;
  const std::string bytes("a\0b\n", 4);
  const auto read = ReadFile(folder.Write("f", bytes));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, bytes);
}

TEST(ReadFileTest, TellsMissingFromBad) {
  const TempFolder folder;
  EXPECT_EQ(ReadFile(folder.path() + "/none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadFile(folder.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
  // Opening a pipe that nobody writes to must not wait.
  const std::string pipe = folder.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(ReadFile(pipe).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ReadFileTest, RefusesLargeFiles) {
  const TempFolder folder;
  const std::string path = folder.Write("f", "12345");
  EXPECT_TRUE(ReadFile(path, 5).ok());
  const auto status = ReadFile(path, 4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("5 bytes, at most 4"));
}

class MemberTest : public ::testing::Test {
 protected:
  const Json json_ = Json::parse(R"({
    "int": 3, "real": 2.0, "text": "x", "flag": true, "none": null,
    "big": 18446744073709551615})");
};

TEST_F(MemberTest, GivesWhatIsThere) {
  EXPECT_EQ(*IntOr(json_, "int", 0), 3);
  EXPECT_EQ(*DoubleOr(json_, "real", 0), 2.0);
  EXPECT_EQ(*DoubleOr(json_, "int", 0), 3.0);
  EXPECT_EQ(*StringOr(json_, "text", ""), "x");
  EXPECT_EQ(*BoolOr(json_, "flag", false), true);
  EXPECT_EQ(*RequiredInt(json_, "int"), 3);
  EXPECT_EQ(*RequiredString(json_, "text"), "x");
}

TEST_F(MemberTest, FallsBackWhereAbsentOrNull) {
  for (const char* const key : {"absent", "none"}) {
    EXPECT_EQ(*IntOr(json_, key, 7), 7);
    EXPECT_EQ(*DoubleOr(json_, key, 1.5), 1.5);
    EXPECT_EQ(*StringOr(json_, key, "y"), "y");
    EXPECT_EQ(*BoolOr(json_, key, true), true);
    EXPECT_THAT(std::string(RequiredInt(json_, key).status().message()),
                HasSubstr(key));
    EXPECT_FALSE(RequiredString(json_, key).ok());
  }
}

TEST_F(MemberTest, RefusesOtherTypes) {
  EXPECT_FALSE(IntOr(json_, "real", 0).ok());
  EXPECT_FALSE(IntOr(json_, "big", 0).ok());
  EXPECT_FALSE(IntOr(json_, "flag", 0).ok());
  EXPECT_FALSE(DoubleOr(json_, "text", 0).ok());
  EXPECT_FALSE(BoolOr(json_, "int", false).ok());
  EXPECT_FALSE(IntOr(Json::array(), "int", 0).ok());
  const auto status = StringOr(json_, "int", "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"int\""));
}

}  // namespace
}  // namespace cupola::model
