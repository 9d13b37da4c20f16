// Files from outside: what is refused, and what is taken as `tokenizers` does.
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/json.h"
#include "server/model/tokenizer/tokenizer.h"
#include "tests/model/tokenizer/temp_folder.h"

namespace cupola::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json Small() {
  return Json::parse(R"({
    "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "x y": 3},
              "merges": ["a b"]}})");
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(
    const std::string& tokenizer, const std::string& config = "{}") {
  const TempFolder folder;
  folder.Write("tokenizer.json", tokenizer);
  folder.Write("tokenizer_config.json", config);
  return Tokenizer::Load(folder.path());
}

std::vector<int32_t> Encode(const Json& json, const std::string& text) {
  const auto tokenizer = Load(json.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  if (!tokenizer.ok()) return {-1};
  const auto ids = (*tokenizer)->Encode(text);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<int32_t>{-1};
}

TEST(LoaderTest, LoadsTheSmallOne) {
  EXPECT_THAT(Encode(Small(), "abba"), ElementsAre(2, 1, 0));
  // Characters without a token are lost where there is no unknown token.
  EXPECT_THAT(Encode(Small(), "a?b"), ElementsAre(2));
}

TEST(LoaderTest, SaysWhatIsMissing) {
  const TempFolder folder;
  EXPECT_EQ(Tokenizer::Load(folder.path()).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Tokenizer::Load(folder.path() + "/none").status().code(),
            absl::StatusCode::kNotFound);
  folder.Write("vocab.json", "{}");
  EXPECT_EQ(Tokenizer::Load(folder.path()).status().code(),
            absl::StatusCode::kNotFound);
  folder.Write("merges.txt", "#version: 0.2\na b\n");
  EXPECT_EQ(Tokenizer::Load(folder.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
  folder.Write("merges.txt", "\xFF\xFF x\n");
  EXPECT_EQ(Tokenizer::Load(folder.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

struct Hostile {
  const char* patch;  // a JSON merge patch (RFC 7396) of Small()
  const char* message;
};

TEST(LoaderTest, RefusesHostileFilesByName) {
  const Hostile cases[] = {
      {R"({"model": null})", "\"model\""},
      {R"({"model": {"type": "Unigram"}})", "Unigram"},
      {R"({"model": {"vocab": [1]}})", "\"vocab\""},
      {R"({"model": {"vocab": {"z": -1}}})", "\"z\""},
      {R"({"model": {"vocab": {"z": 4294967296}}})", "4294967296"},
      {R"({"model": {"vocab": {"z": 2097152}}})", "2097152"},
      {R"({"model": {"vocab": {"z": 1.5}}})", "1.5"},
      {R"({"model": {"vocab": {"z": "0"}}})", "\"z\""},
      {R"({"model": {"vocab": {"z": 2}}})", "the same id 2"},
      {R"({"model": {"merges": {}}})", "\"merges\""},
      {R"({"model": {"merges": ["a z"]}})", "\"z\""},
      {R"({"model": {"merges": ["b a"]}})", "\"ba\""},
      {R"({"model": {"merges": ["ab"]}})", "\"merges\"[0]"},
      {R"({"model": {"merges": ["a b", "a  b"]}})", "\"merges\"[1]"},
      {R"({"model": {"merges": [["a"]]}})", "\"merges\"[0]"},
      {R"({"model": {"merges": [["a", "b"], "a b"]}})", "\"merges\"[1]"},
      {R"({"model": {"merges": ["a b", 3]}})", "\"merges\"[1]"},
      {R"({"model": {"dropout": 0.1}})", "dropout"},
      {R"({"model": {"end_of_word_suffix": "</w>"}})", "end_of_word_suffix"},
      {R"({"model": {"byte_fallback": 1}})", "byte_fallback"},
      {R"({"model": {"unk_token": 1}})", "unk_token"},
      {R"({"added_tokens": {}})", "\"added_tokens\""},
      {R"({"added_tokens": [{"id": 4}]})", "\"added_tokens\"[0]"},
      {R"({"added_tokens": [{"content": 5}]})", "content"},
      {R"({"added_tokens": [{"content": "z", "lstrip": 0}]})", "lstrip"},
      {R"({"normalizer": {"type": "Precompiled"}})", "Precompiled"},
      {R"({"normalizer": 7})", "object"},
      {R"({"normalizer": {"type": "Sequence"}})", "normalizers"},
      {R"({"normalizer": {"type": "Sequence", "normalizers": [null]}})",
       "null"},
      {R"({"normalizer": {"type": "Replace", "content": ""}})", "pattern"},
      {R"({"normalizer": {"type": "Replace", "content": "",
          "pattern": {"String": ""}}})",
       "pattern"},
      {R"({"normalizer": {"type": "Prepend"}})", "prepend"},
      {R"({"pre_tokenizer": {"type": "UnicodeScripts"}})", "UnicodeScripts"},
      {R"({"pre_tokenizer": {}})", "type"},
      {R"({"pre_tokenizer": {"type": "Split", "behavior": "Isolated",
          "pattern": {"Regex": "(a"}}})",
       "regex"},
      {R"({"pre_tokenizer": {"type": "Split", "behavior": "Nope",
          "pattern": {"Regex": "a"}}})",
       "Nope"},
      {R"({"pre_tokenizer": {"type": "Split", "behavior": "Isolated",
          "pattern": "a"}})",
       "pattern"},
      {R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}})",
       "replacement"},
      {R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_",
          "prepend_scheme": "last"}})",
       "last"},
      {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": 1}})",
       "pretokenizers"},
      {R"({"decoder": {"type": "CTC"}})", "CTC"},
      {R"({"decoder": {"type": "Strip", "content": " ", "start": -1,
          "stop": 0}})",
       "Strip"},
      {R"({"post_processor": {"type": "TemplateProcessing", "single": []}})",
       "single"},
      {R"({"post_processor": {"type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "<s>"}}]}})",
       "<s>"},
      {R"({"post_processor": {"type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "<s>"}}],
          "special_tokens": {"<s>": {"ids": [99]}}}})",
       "99"},
      {R"({"post_processor": {"type": "BertProcessing", "cls": ["a"]}})",
       "cls"},
  };
  for (const Hostile& hostile : cases) {
    Json json = Small();
    json.merge_patch(Json::parse(hostile.patch));
    const auto status = Load(json.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
        << hostile.patch << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(hostile.message));
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
  }
}

TEST(LoaderTest, RefusesWhatIsNoTokenizer) {
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("null"),
        std::string("{}"), std::string(100'000, '['), std::string("{\"model\""),
        std::string("{\"model\": {\"type\": \"BPE\"}}")}) {
    EXPECT_EQ(Load(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text.substr(0, 20);
  }
}

TEST(LoaderTest, RefusesAnyCutOfAGoodFile) {
  const std::string good = Small().dump();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(Load(good.substr(0, size)).ok()) << size;
  }
}

TEST(LoaderTest, RefusesBadConfigurations) {
  const std::string good = Small().dump();
  for (const char* const config :
       {"[]", "{", R"({"bos_token": 3})", R"({"bos_token": {"x": 1}})",
        R"({"bos_token": "absent"})", R"({"eos_token": []})"}) {
    EXPECT_EQ(Load(good, config).status().code(),
              absl::StatusCode::kInvalidArgument)
        << config;
  }
  // An eos_token that is not in the vocabulary just does not stand in.
  const auto tokenizer = Load(good, R"({"eos_token": "absent"})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), std::nullopt);
}

TEST(LoaderTest, TakesMergesOfTokensWithSpaces) {
  Json json = Small();
  json["model"]["vocab"] = {{"x", 0}, {" ", 1}, {"x ", 2}, {"x x", 3}};
  json["model"]["merges"] = Json::parse(R"([["x", " "], ["x ", "x"]])");
  EXPECT_THAT(Encode(json, "x xx "), ElementsAre(3, 2));
}

TEST(LoaderTest, GivesAddedTokensTheNextIds) {
  Json json = Small();
  const auto add = [&json](const char* content, int id) {
    json["added_tokens"].push_back(
        {{"content", content}, {"id", id}, {"special", true}});
  };
  add("<s>", 77);  // `tokenizers` gives 4, whatever the file says
  add("ab", 5);    // has an id already
  add("</s>", 78);
  EXPECT_THAT(Encode(json, "<s>abb</s>"), ElementsAre(4, 2, 1, 5));
  // With a hole in the vocabulary, the next id can be another token's.
  json["model"]["vocab"]["far"] = 5;
  EXPECT_EQ(Load(json.dump()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(LoaderTest, HolesHaveNoTokens) {
  Json json = Small();
  json["model"]["vocab"]["far"] = 9;
  const auto tokenizer = Load(json.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocabulary_size(), 10);
  EXPECT_EQ(*(*tokenizer)->Piece(9), "far");
  EXPECT_FALSE((*tokenizer)->Piece(8).ok());
  EXPECT_FALSE((*tokenizer)->Decode({8}).ok());
}

TEST(LoaderTest, UnknownTokensFuseOnlyOnRequest) {
  Json json = Small();
  json["model"]["unk_token"] = "b";
  EXPECT_THAT(Encode(json, "a??"), ElementsAre(2, 1));
  json["model"]["fuse_unk"] = true;
  EXPECT_THAT(Encode(json, "a??"), ElementsAre(2));
  json["model"]["unk_token"] = "absent";
  const auto tokenizer = Load(json.dump());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->Encode("a?").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE((*tokenizer)->Encode("ab").ok());
}

TEST(LoaderTest, DecoderlessTokensAreJoinedWithSpaces) {
  const auto tokenizer = Load(Small().dump());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(*(*tokenizer)->Decode({0, 2}), "a ab");
}

TEST(LoaderTest, RunawayRegexesGiveUp) {
  Json json = Small();
  json["pre_tokenizer"] = {{"type", "Split"},
                           {"pattern", {{"Regex", "(?:a|aa)+[bc]"}}},
                           {"behavior", "Isolated"},
                           {"invert", false}};
  const auto tokenizer = Load(json.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode(std::string(100, 'a')).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace cupola::model
