// Whole tokenizers against what the `tokenizers` package gives: the goldens of
// tests/data/tokenizers (see make_tokenizers.py there).
#include "server/model/tokenizer/tokenizer.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/json.h"
#include "tests/model/tokenizer/temp_folder.h"

namespace cupola::model {
namespace {

using ::testing::HasSubstr;

constexpr char kData[] = "tests/data/tokenizers/";

std::unique_ptr<const Tokenizer> LoadOrDie(const std::string& folder) {
  auto tokenizer = Tokenizer::Load(folder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  const std::string folder_ = std::string(kData) + GetParam();
};

TEST_P(GoldenTest, EncodesAndDecodesAsTokenizersDoes) {
  const auto tokenizer = LoadOrDie(folder_);
  ASSERT_NE(tokenizer, nullptr);
  const auto goldens = ReadJsonFile(folder_ + "/goldens.json");
  ASSERT_TRUE(goldens.ok()) << goldens.status();
  ASSERT_GT(goldens->size(), 100u);
  for (const Json& golden : *goldens) {
    const auto text = golden["text"].get<std::string>();
    const auto expected = golden["ids"].get<std::vector<int32_t>>();
    const auto ids = tokenizer->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected) << golden["text"];
    const auto decoded = tokenizer->Decode(expected);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, golden["decoded"].get<std::string>()) << golden["text"];
  }
}

TEST_P(GoldenTest, ServesManyThreads) {
  const auto tokenizer = LoadOrDie(folder_);
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = "the river and the world\n\n don't 123 é你😀<s>";
  const auto alone = tokenizer->Encode(text);
  ASSERT_TRUE(alone.ok()) << alone.status();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        EXPECT_EQ(*tokenizer->Encode(text), *alone);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenTest,
                         ::testing::Values("gemma", "gpt2", "gpt2_files",
                                           "llama2", "llama3", "mistral",
                                           "neox", "odd", "qwen2", "smollm2"),
                         [](const auto& info) { return info.param; });

TEST(TokenizerTest, PiecesStandAsInTheText) {
  for (const char* const name : {"gpt2", "llama3", "smollm2"}) {
    const auto tokenizer = LoadOrDie(std::string(kData) + name);
    ASSERT_NE(tokenizer, nullptr);
    const std::string text = " the river é你😀\n\n1234<|endoftext|> don't";
    const auto ids = tokenizer->Encode(text);
    ASSERT_TRUE(ids.ok());
    std::string joined;
    for (const int32_t id : *ids) joined += *tokenizer->Piece(id);
    EXPECT_EQ(joined, text) << name;
  }
  const auto llama2 = LoadOrDie(std::string(kData) + "llama2");
  ASSERT_NE(llama2, nullptr);
  EXPECT_EQ(*llama2->Piece(1), "<s>");
  EXPECT_EQ(*llama2->Piece(3 + '\n'), "\n");  // <0x0A>
  EXPECT_EQ(*llama2->Piece(3 + 0xE4), "\xE4");
  EXPECT_EQ(*llama2->Piece(llama2->Encode("the")->at(0)), " the");
}

TEST(TokenizerTest, KnowsItsBos) {
  const struct {
    const char* name;
    int bos;
    int declared;
  } cases[] = {
      {"gpt2", 0, 0},        // tokenizer_config.json, a string
      {"gpt2_files", 0, 0},  // GPT-2's own, that no file names
      {"llama2", 1, 1},      // an object
      {"llama3", 700, 700},  // only the post-processor's template
      {"qwen2", 600, -1},    // null: the eos token stands in
      {"neox", 0, -1},       // none named: the eos token stands in
      {"odd", -1, -1},       // neither
  };
  for (const auto& c : cases) {
    const auto tokenizer = LoadOrDie(std::string(kData) + c.name);
    ASSERT_NE(tokenizer, nullptr);
    EXPECT_EQ(tokenizer->bos_id().value_or(-1), c.bos) << c.name;
    EXPECT_EQ(tokenizer->declared_bos_id().value_or(-1), c.declared) << c.name;
  }
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = LoadOrDie(std::string(kData) + "gpt2");
  ASSERT_NE(tokenizer, nullptr);
  const auto status = tokenizer->Encode("ab\xFFz").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 2"));
  // A NUL is a character like others.
  EXPECT_TRUE(tokenizer->Encode(absl::string_view("a\0b", 3)).ok());
}

TEST(TokenizerTest, RefusesIdsOutsideTheVocabulary) {
  const auto tokenizer = LoadOrDie(std::string(kData) + "gpt2");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocabulary_size(), 700);
  for (const int32_t id : {-1, 700, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->Decode({0, id}).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(tokenizer->Piece(id).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(TokenizerTest, FingerprintsWhatItRead) {
  const auto gpt2 = LoadOrDie(std::string(kData) + "gpt2");
  const auto again = LoadOrDie(std::string(kData) + "gpt2");
  const auto llama3 = LoadOrDie(std::string(kData) + "llama3");
  ASSERT_TRUE(gpt2 && again && llama3);
  EXPECT_EQ(gpt2->fingerprint().size(), 32u);
  EXPECT_EQ(gpt2->fingerprint(), again->fingerprint());
  EXPECT_NE(gpt2->fingerprint(), llama3->fingerprint());
  // Another BOS is another tokenizer.
  const TempFolder folder;
  folder.Write("tokenizer.json",
               *ReadFile(std::string(kData) + "gpt2/tokenizer.json"));
  EXPECT_NE(LoadOrDie(folder.path())->fingerprint(), gpt2->fingerprint());
}

TEST(TokenizerTest, TakesLongTexts) {
  for (const char* const name : {"gpt2", "llama2", "odd"}) {
    const auto tokenizer = LoadOrDie(std::string(kData) + name);
    ASSERT_NE(tokenizer, nullptr);
    for (const char* const unit : {"a", " ", "\n", "é", "\u0301", "<", "'s"}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      const auto ids = tokenizer->Encode(text);
      EXPECT_TRUE(ids.ok()) << name << ": " << ids.status();
    }
  }
}

}  // namespace
}  // namespace cupola::model
