#include "gtest/gtest.h"
#include "server/model/tokenizer/byte_level.h"
#include "server/model/tokenizer/characters.h"
#include "server/model/tokenizer/normal_form.h"
#include "server/model/tokenizer/stand_ins.h"
#include "server/model/tokenizer/utf8.h"

namespace cupola::model::tokenizer {
namespace {

TEST(Utf8Test, FindsTheFirstBadByte) {
  EXPECT_EQ(FindInvalidUtf8("plain ascii that is long"), std::string::npos);
  EXPECT_EQ(FindInvalidUtf8("é你😀\U0010FFFF"), std::string::npos);
  EXPECT_EQ(FindInvalidUtf8("0123456789\xFF"), 10u);
  EXPECT_EQ(FindInvalidUtf8("a\xC0\x80"), 1u);          // overlong
  EXPECT_EQ(FindInvalidUtf8("a\xED\xA0\x80"), 1u);      // surrogate
  EXPECT_EQ(FindInvalidUtf8("a\xF4\x90\x80\x80"), 1u);  // above U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("ab\xE4\xBD"), 2u);         // cut short
  EXPECT_EQ(FindInvalidUtf8("\x80"), 0u);
}

TEST(Utf8Test, ReplacesMaximalParts) {
  // The example of table 3-8 in the Unicode standard.
  EXPECT_EQ(ToUtf8Lossy("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  EXPECT_EQ(ToUtf8Lossy("é\xE4\xBD"), "é\uFFFD");
  EXPECT_EQ(ToUtf8Lossy(""), "");
}

TEST(Utf8Test, ReadsWhatItWrites) {
  for (const char32_t c :
       {0x0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF}) {
    std::string text;
    AppendCharacter(c, &text);
    size_t at = 0;
    EXPECT_EQ(NextCharacter(text, &at), c);
    EXPECT_EQ(at, text.size());
    EXPECT_EQ(CharacterLength(static_cast<unsigned char>(text[0])),
              text.size());
    EXPECT_EQ(CharacterStart("x" + text, 1 + text.size()), 1u);
  }
}

TEST(CharactersTest, HasTheTablesOfTheirAge) {
  EXPECT_TRUE(IsWhitespace(0x85) && IsWhitespace(0x3000));
  EXPECT_FALSE(IsWhitespace(0x180E) || IsWhitespace(0x200B));
  EXPECT_TRUE(IsWord('_') && IsWord(0x301) && IsWord(0x200D));
  EXPECT_FALSE(IsWord(0xB2) || IsWord('-'));
  EXPECT_TRUE(IsNumeric(0xBD) && IsNumeric(0x2167));
  EXPECT_TRUE(IsNumeric(0x1CCF0));  // Unicode 16
  EXPECT_TRUE(IsNumeric(0x11DE0));  // Unicode 17
  EXPECT_TRUE(IsPunctuation('$') && IsPunctuation(0x166D));
  EXPECT_FALSE(IsPunctuation(0x2E43));  // Unicode 9
  EXPECT_TRUE(IsCombiningMark(0x301) && IsCombiningMark(0x1CF2));
  EXPECT_FALSE(IsCombiningMark(0x8D3));  // Unicode 11
}

TEST(CharactersTest, Lowercases) {
  const auto lower = [](char32_t c) {
    std::string text;
    AppendLowercase(c, &text);
    return text;
  };
  EXPECT_EQ(lower('A'), "a");
  EXPECT_EQ(lower(0x130), "i\u0307");
  EXPECT_EQ(lower(0x3A3), "\u03C3");  // never the final sigma
  EXPECT_EQ(lower(0x10D51), "\U00010D71");
}

TEST(NormalFormTest, Composes) {
  EXPECT_EQ(ToNormalForm(NormalForm::kNfc, "e\u0301 \u1100\u1161\u11A8"),
            "é 각");
  EXPECT_EQ(ToNormalForm(NormalForm::kNfc, "\u212B"), "Å");
  EXPECT_EQ(ToNormalForm(NormalForm::kNfc, "\u0958"), "\u0915\u093C");
  EXPECT_EQ(ToNormalForm(NormalForm::kNfkc, "ﬁ㎏Ⅷ"), "fikgVIII");
}

TEST(NormalFormTest, DecomposesAndOrders) {
  EXPECT_EQ(ToNormalForm(NormalForm::kNfd, "é"), "e\u0301");
  // The dot below (220) goes before the acute (230), wherever it stood.
  EXPECT_EQ(ToNormalForm(NormalForm::kNfd, "a\u0301\u0323"), "a\u0323\u0301");
  EXPECT_EQ(ToNormalForm(NormalForm::kNfc, "a\u0301\u0323"), "\u1EA1\u0301");
  EXPECT_EQ(ToNormalForm(NormalForm::kNfkd, "½"), "1\u20442");
}

TEST(NormalFormTest, LeavesLaterUnicodeAlone) {
  EXPECT_EQ(ToNormalForm(NormalForm::kNfkc, "\u32FF"), "\u32FF");
  EXPECT_EQ(ToNormalForm(NormalForm::kNfd, "\U00011938"), "\U00011938");
}

TEST(NormalFormTest, TakesALongRunOfMarks) {
  std::string text = "a";
  for (int i = 0; i < 200'000; ++i) text += "\u0301\u0323";
  const std::string normal = ToNormalForm(NormalForm::kNfd, text);
  ASSERT_EQ(normal.size(), text.size());
  EXPECT_EQ(normal.substr(0, 5), "a\u0323\u0323");
  EXPECT_EQ(normal.substr(normal.size() - 4), "\u0301\u0301");
}

TEST(StandInsTest, KeepLengthsAndOrdinaryText) {
  std::string buffer;
  const std::string plain = "Hello é你😀 ordinary text of some length";
  EXPECT_EQ(WithStandIns(plain, &buffer).data(), plain.data());
  const std::string late = "ab\U00031350c\u180E\u1C89";
  const absl::string_view with = WithStandIns(late, &buffer);
  EXPECT_EQ(std::string(with), "ab\U00020000c\u200B\u10A0");
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string from, to;
    AppendCharacter(c, &from);
    AppendCharacter(StandIn(c), &to);
    ASSERT_EQ(from.size(), to.size()) << static_cast<uint32_t>(c);
    ASSERT_EQ(StandIn(StandIn(c)), StandIn(c)) << static_cast<uint32_t>(c);
  }
}

TEST(ByteLevelTest, IsAOneToOneAlphabet) {
  EXPECT_EQ(ToByteAlphabet(" the\n"), "ĠtheĊ");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(FromByteAlphabet(ToByteAlphabet(all)), all);
  EXPECT_EQ(FromByteAlphabet("a b"), std::nullopt);  // a bare space
  EXPECT_EQ(FromByteAlphabet("▁"), std::nullopt);
}

}  // namespace
}  // namespace cupola::model::tokenizer
