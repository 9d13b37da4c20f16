#include "server/service/answer_conversion.h"

#include <string>
#include <vector>

#include "client/cpp/chunk_assembler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/service/tensor_conversion.h"
#include "tests/service/proto_tensors.h"

namespace cupola::service {
namespace {

using ::cupola::testing::MakeArray;
using ::cupola::testing::Values;
using storage::DType;
using ::testing::ElementsAre;

engine::Array Numbers(int64_t count, float first) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = first + i;
  return MakeArray(DType::kFloat32, {count}, values);
}

// Puts the pieces back the way a client does.
template <typename Response>
typename Response::Header Assemble(const StreamedAnswer<Response>& streamed) {
  typename Response::Header header = streamed.first.header();
  auto assembler =
      ChunkAssembler::Create(&header, header.provenance().chunked_bytes());
  EXPECT_TRUE(assembler.ok()) << assembler.status();
  for (const std::string& piece : streamed.pieces) {
    EXPECT_TRUE(assembler->Append(piece).ok());
  }
  EXPECT_TRUE(assembler->Finish().ok());
  return header;
}

engine::FeaturesAnswer Features(int64_t entries) {
  engine::FeaturesAnswer answer;
  answer.features.indptr =
      MakeArray<int64_t>(DType::kInt64, {3}, {0, 1, entries});
  std::vector<uint32_t> indices(entries);
  for (int64_t i = 0; i < entries; ++i) indices[i] = static_cast<uint32_t>(i);
  answer.features.indices = MakeArray(DType::kUInt32, {entries}, indices);
  answer.features.values = Numbers(entries, 0.5f);
  answer.features.columns = entries;
  answer.prompt = MakeArray<int32_t>(DType::kInt32, {2}, {0, 1});
  answer.position = MakeArray<int32_t>(DType::kInt32, {2}, {4, 0});
  answer.provenance.token_ids = {{1, 2}, {}};
  answer.provenance.model = "m";
  answer.provenance.model_digest[0] = 0xAB;
  answer.provenance.dictionary = "d";
  answer.provenance.processing = model::Processing::kFolded;
  answer.provenance.from_cache = true;
  answer.provenance.seconds.queue = 0.25;
  return answer;
}

TEST(AnswerConversionTest, SmallAnswersFitTheFirstMessage) {
  const auto streamed = ToProto(Features(3), 1.5);
  EXPECT_TRUE(streamed.pieces.empty());
  const auto& header = streamed.first.header();
  EXPECT_EQ(header.provenance().chunked_bytes(), 0);
  EXPECT_THAT(Values<int64_t>(header.features().indptr().data()),
              ElementsAre(0, 1, 3));
  EXPECT_THAT(Values<float>(header.features().values().data()),
              ElementsAre(0.5, 1.5, 2.5));
  EXPECT_EQ(header.features().columns(), 3);
  EXPECT_THAT(Values<int32_t>(header.position().data()), ElementsAre(4, 0));
  const v1::Provenance& provenance = header.provenance();
  ASSERT_EQ(provenance.token_ids_size(), 2);
  EXPECT_THAT(provenance.token_ids(0).ids(), ElementsAre(1, 2));
  EXPECT_EQ(provenance.model_digest().size(), 32u);
  EXPECT_EQ(static_cast<uint8_t>(provenance.model_digest()[0]), 0xAB);
  EXPECT_EQ(provenance.dictionary(), "d");
  EXPECT_EQ(provenance.dtype(), v1::FLOAT32);
  EXPECT_EQ(provenance.processing(), v1::FOLDED);
  EXPECT_TRUE(provenance.from_cache());
  EXPECT_EQ(provenance.seconds().queue(), 0.25);
  EXPECT_EQ(provenance.seconds().total(), 1.5);
}

TEST(AnswerConversionTest, OneByteBelowAndAboveTheLimit) {
  // 8 bytes an entry, and 24 + 8 + 8 for the rest.
  const int64_t most = (kInlineAnswerBytes - 40) / 8;
  EXPECT_TRUE(ToProto(Features(most), 0).pieces.empty());
  EXPECT_FALSE(ToProto(Features(most + 1), 0).pieces.empty());
}

TEST(AnswerConversionTest, LargeFeaturesComeBackWhole) {
  const int64_t entries = 400'000;
  const auto streamed = ToProto(Features(entries), 0);
  EXPECT_EQ(streamed.first.header().provenance().chunked_bytes(),
            40 + 8 * entries);
  EXPECT_TRUE(streamed.first.header().features().values().data().empty());
  const auto header = Assemble(streamed);
  const engine::FeaturesAnswer original = Features(entries);
  EXPECT_EQ(header.features().indptr().data(), original.features.indptr.bytes);
  EXPECT_EQ(header.features().indices().data(),
            original.features.indices.bytes);
  EXPECT_EQ(header.features().values().data(), original.features.values.bytes);
  EXPECT_EQ(header.prompt().data(), original.prompt.bytes);
  EXPECT_EQ(header.position().data(), original.position.bytes);
}

TEST(AnswerConversionTest, LargeActivationsComeBackWhole) {
  engine::ActivationsAnswer answer;
  answer.hooks = {"hook_embed", "blocks.0.hook_resid_pre"};
  answer.activations = {{Numbers(200'000, 1), Numbers(0, 0)},
                        {Numbers(3, 7), Numbers(200'000, 2)}};
  answer.positions = {MakeArray<int32_t>(DType::kInt32, {1}, {5}),
                      MakeArray<int32_t>(DType::kInt32, {2}, {6, 7})};
  const engine::ActivationsAnswer original = answer;
  const auto header = Assemble(ToProto(std::move(answer), 0));
  ASSERT_EQ(header.hooks_size(), 2);
  for (int hook = 0; hook < 2; ++hook) {
    EXPECT_EQ(header.hooks(hook).name(), original.hooks[hook]);
    for (int prompt = 0; prompt < 2; ++prompt) {
      EXPECT_EQ(header.hooks(hook).prompts(prompt).data(),
                original.activations[hook][prompt].bytes);
    }
  }
  EXPECT_THAT(Values<int32_t>(header.positions(1).data()), ElementsAre(6, 7));
}

TEST(AnswerConversionTest, LargeReconstructionWithoutTarget) {
  engine::ReconstructAnswer answer;
  answer.reconstruction = Numbers(400'000, 3);
  answer.l0 = Numbers(2, 11);
  answer.prompt = MakeArray<int32_t>(DType::kInt32, {2}, {0, 0});
  answer.position = MakeArray<int32_t>(DType::kInt32, {2}, {1, 2});
  answer.fvu = 0.5;
  answer.mean_l0 = 11.5;
  const engine::ReconstructAnswer original = answer;
  const auto header = Assemble(ToProto(std::move(answer), 0));
  EXPECT_FALSE(header.has_target());
  EXPECT_FALSE(header.has_squared_error());
  EXPECT_EQ(header.reconstruction().data(), original.reconstruction.bytes);
  EXPECT_EQ(header.l0().data(), original.l0.bytes);
  EXPECT_EQ(header.position().data(), original.position.bytes);
  EXPECT_EQ(header.fvu(), 0.5);
  EXPECT_EQ(header.mean_l0(), 11.5);
}

TEST(AnswerConversionTest, Tokens) {
  engine::TokenizeAnswer answer;
  answer.prepended_bos = true;
  // A byte-level piece need not be valid UTF-8.
  answer.prompts = {{{5, 6}, {"a", "\xe2\x82"}, "a\xe2\x82"}};
  const v1::TokenizeResponse response = ToProto(std::move(answer));
  EXPECT_TRUE(response.prepended_bos());
  EXPECT_THAT(response.prompts(0).ids(), ElementsAre(5, 6));
  EXPECT_THAT(response.prompts(0).pieces(), ElementsAre("a", "\xe2\x82"));
  EXPECT_EQ(response.prompts(0).text(), "a\xe2\x82");
}

}  // namespace
}  // namespace cupola::service
