#include "server/model/model_config.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json Llama() {
  return Json::parse(R"({
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 100,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 50, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "bos_token_id": 1})");
}

Json Gpt2() {
  return Json::parse(R"({
    "model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4,
    "n_positions": 32, "vocab_size": 50, "layer_norm_epsilon": 1e-5})");
}

Json With(Json config, const char* key, Json value) {
  config[key] = std::move(value);
  return config;
}

Json Without(Json config, const char* key) {
  config.erase(key);
  return config;
}

void ExpectError(const Json& json, absl::StatusCode code,
                 const std::string& what) {
  const auto config = ParseModelConfig(json);
  EXPECT_EQ(config.status().code(), code) << json.dump();
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(what));
}

TEST(ModelConfigTest, ReadsLlama) {
  const auto config = ParseModelConfig(Llama());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->d_head, 16);
  EXPECT_EQ(config->n_kv_heads, 2);
  EXPECT_EQ(config->norm, NormKind::kRmsNorm);
  EXPECT_EQ(config->activation, Activation::kSilu);
  EXPECT_TRUE(config->gated_mlp);
  EXPECT_FALSE(config->tied_unembedding);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_DOUBLE_EQ(config->attention[1].scale, 4);
  EXPECT_EQ(config->rotary.rotary_dim, 16);
  EXPECT_FLOAT_EQ(config->rotary.inverse_frequencies[1],
                  std::pow(10000.0, -2.0 / 16));
}

TEST(ModelConfigTest, BosDefaultsAreThoseOfTheFamilies) {
  EXPECT_TRUE(ParseModelConfig(Llama())->default_prepend_bos);
  EXPECT_TRUE(ParseModelConfig(Gpt2())->default_prepend_bos);
  for (const char* family : {"gpt_neox", "qwen2", "qwen3"}) {
    const Json json = Without(Llama(), "num_key_value_heads");
    const auto config = ParseModelConfig(With(json, "model_type", family));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_FALSE(config->default_prepend_bos) << family;
  }
}

TEST(ModelConfigTest, AMissingFieldIsNamed) {
  for (const char* key :
       {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "vocab_size", "max_position_embeddings"}) {
    ExpectError(Without(Llama(), key), absl::StatusCode::kInvalidArgument, key);
  }
  for (const char* key : {"n_embd", "n_layer", "n_head", "n_positions"}) {
    ExpectError(Without(Gpt2(), key), absl::StatusCode::kInvalidArgument, key);
  }
}

TEST(ModelConfigTest, BadValuesAreRefused) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectError(Json::array(), invalid, "object");
  ExpectError(With(Llama(), "hidden_size", "64"), invalid, "hidden_size");
  ExpectError(With(Llama(), "hidden_size", 0), invalid, "hidden_size");
  ExpectError(With(Llama(), "hidden_size", -64), invalid, "hidden_size");
  ExpectError(With(Llama(), "hidden_size", 64.5), invalid, "hidden_size");
  ExpectError(With(Llama(), "num_hidden_layers", 1000000000), invalid,
              "num_hidden_layers");
  ExpectError(With(Llama(), "vocab_size", 1LL << 60), invalid, "vocab_size");
  ExpectError(With(Llama(), "rms_norm_eps", 0), invalid, "rms_norm_eps");
  ExpectError(With(Llama(), "rms_norm_eps", -1e-5), invalid, "rms_norm_eps");
  ExpectError(With(Llama(), "tie_word_embeddings", 1), invalid,
              "tie_word_embeddings");
  ExpectError(With(Llama(), "rope_scaling", 3), invalid, "rope_scaling");
  ExpectError(With(Llama(), "rope_theta", -1), invalid, "rope_theta");
}

TEST(ModelConfigTest, ContradictionsAreRefused) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectError(With(Llama(), "num_attention_heads", 5), invalid, "head");
  ExpectError(With(Llama(), "num_key_value_heads", 3), invalid,
              "num_key_value_heads");
  ExpectError(With(Llama(), "head_dim", 15), invalid, "even");
  ExpectError(With(Gpt2(), "n_head", 3), invalid, "heads");
  const Json gemma2 = With(Llama(), "model_type", "gemma2");
  ExpectError(With(gemma2, "layer_types", {"full_attention"}), invalid,
              "layer_types");
  ExpectError(With(gemma2, "layer_types", 2), invalid, "layer_types");
  Json neo = Json::parse(R"({
    "model_type": "gpt_neo", "hidden_size": 64, "num_layers": 3,
    "num_heads": 4, "max_position_embeddings": 32, "vocab_size": 50})");
  ExpectError(neo, invalid, "attention_layers");
  ExpectError(With(neo, "attention_types", Json::parse(R"([[["global"],2]])")),
              invalid, "3 layers");
}

TEST(ModelConfigTest, WhatIsNotServedIsNamed) {
  const auto unimplemented = absl::StatusCode::kUnimplemented;
  ExpectError(With(Llama(), "model_type", "bloom"), unimplemented,
              "gpt_neox");  // lists what is
  ExpectError(
      With(With(Llama(), "model_type", "mixtral"), "num_local_experts", 8),
      unimplemented, "experts");
  ExpectError(With(With(Llama(), "model_type", "mpt"), "alibi", true),
              unimplemented, "alibi");
  ExpectError(
      With(Llama(), "rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}),
      unimplemented, "yarn");
  ExpectError(
      With(Llama(), "rope_scaling", {{"type", "dynamic"}, {"factor", 4.0}}),
      unimplemented, "dynamic");
  ExpectError(With(Llama(), "hidden_act", "xielu"), unimplemented, "xielu");
  ExpectError(With(Llama(), "quantization_config", {{"bits", 4}}),
              unimplemented, "quantiz");
  ExpectError(With(Gpt2(), "add_cross_attention", true), unimplemented,
              "cross");
  ExpectError(With(With(Llama(), "model_type", "gemma2"), "layer_types",
                   {"full_attention", "linear_attention"}),
              unimplemented, "linear_attention");
}

TEST(ModelConfigTest, RopeScalingNeedsItsNumbers) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectError(With(Llama(), "rope_scaling", {{"type", "linear"}}), invalid,
              "factor");
  ExpectError(With(Llama(), "rope_scaling",
                   {{"type", "llama3"},
                    {"factor", 8},
                    {"low_freq_factor", 4},
                    {"high_freq_factor", 1}}),
              invalid, "high_freq_factor");
}

TEST(ModelConfigTest, Gemma2SlidesFirst) {
  Json json = With(Llama(), "model_type", "gemma2");
  json["num_hidden_layers"] = 4;
  json["sliding_window"] = 8;
  const auto config = ParseModelConfig(json);
  ASSERT_TRUE(config.ok()) << config.status();
  std::vector<int64_t> windows;
  for (const auto& layer : config->attention) windows.push_back(layer.window);
  EXPECT_THAT(windows, ElementsAre(8, 0, 8, 0));
  EXPECT_DOUBLE_EQ(config->attention[0].scale, 16);
}

TEST(ModelConfigTest, ASparseMultimodalGemma3HasItsFamilysDefaults) {
  const auto config = ParseModelConfig(Json::parse(R"({
    "model_type": "gemma3", "bos_token_id": 2,
    "text_config": {"model_type": "gemma3_text", "hidden_size": 2560,
      "intermediate_size": 10240, "num_hidden_layers": 7,
      "sliding_window": 1024,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->n_heads, 8);
  EXPECT_EQ(config->n_kv_heads, 4);
  EXPECT_EQ(config->d_head, 256);
  EXPECT_EQ(config->bos_token_id, 2);
  EXPECT_EQ(config->attention[4].window, 1024);
  EXPECT_EQ(config->attention[5].window, 0);
  EXPECT_TRUE(config->attention[4].local_rotary);
  EXPECT_FALSE(config->attention[5].local_rotary);
  EXPECT_FLOAT_EQ(config->rotary.inverse_frequencies[0], 1.0 / 8);
  EXPECT_FLOAT_EQ(config->local_rotary.inverse_frequencies[0], 1.0);
}

TEST(ModelConfigTest, TheFingerprintSeesEveryChange) {
  const std::string before = ParseModelConfig(Llama())->fingerprint;
  EXPECT_EQ(ParseModelConfig(With(Llama(), "use_cache", false))->fingerprint,
            before);
  for (const auto& [key, value] :
       {std::pair<const char*, Json>{"rms_norm_eps", 1e-6},
        {"rope_theta", 20000.0},
        {"num_key_value_heads", 4},
        {"tie_word_embeddings", true},
        {"attention_bias", true},
        {"hidden_act", "gelu"}}) {
    const auto changed = ParseModelConfig(With(Llama(), key, value));
    ASSERT_TRUE(changed.ok()) << changed.status();
    EXPECT_NE(changed->fingerprint, before) << key;
  }
}

}  // namespace
}  // namespace cupola::model
