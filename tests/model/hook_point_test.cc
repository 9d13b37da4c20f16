#include "server/model/hook_point.h"

#include <algorithm>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::model {
namespace {

using ::testing::HasSubstr;

ModelConfig Gpt2Like() {
  ModelConfig config;
  config.n_layers = 6;
  config.d_model = 8;
  config.n_heads = config.n_kv_heads = 2;
  config.d_head = 4;
  config.d_mlp = 32;
  config.d_vocab = 100;
  return config;
}

ModelConfig GemmaLike() {
  ModelConfig config = Gpt2Like();
  config.positions = PositionKind::kRotary;
  config.post_norms = config.qk_norm = config.gated_mlp = true;
  config.n_heads = 4;
  return config;
}

std::string Parsed(absl::string_view name, const ModelConfig& config) {
  const auto point = ParseHookPoint(name, config);
  return point.ok() ? HookName(*point) : point.status().ToString();
}

TEST(HookPointTest, EveryNameReadsBackAsItself) {
  for (const ModelConfig& config : {Gpt2Like(), GemmaLike()}) {
    for (const HookPoint& point : AllHookPoints(config)) {
      const auto parsed = ParseHookPoint(HookName(point), config);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(*parsed, point) << HookName(point);
      EXPECT_FALSE(HookShape(point, config).empty());
    }
  }
}

TEST(HookPointTest, ForwardOrderIsTheOrderOfTheList) {
  const auto points = AllHookPoints(GemmaLike());
  EXPECT_TRUE(std::is_sorted(points.begin(), points.end(),
                             [](const HookPoint& a, const HookPoint& b) {
                               return ForwardOrder(a) < ForwardOrder(b);
                             }));
  std::set<int64_t> orders;
  for (const HookPoint& point : points) orders.insert(ForwardOrder(point));
  EXPECT_EQ(orders.size(), points.size());
}

TEST(HookPointTest, ShortForms) {
  const ModelConfig config = GemmaLike();
  EXPECT_EQ(Parsed("resid_post5", config), "blocks.5.hook_resid_post");
  EXPECT_EQ(Parsed("k3", config), "blocks.3.attn.hook_k");
  EXPECT_EQ(Parsed("key3", config), "blocks.3.attn.hook_k");
  EXPECT_EQ(Parsed("attn2", config), "blocks.2.attn.hook_pattern");
  EXPECT_EQ(Parsed("rot_q1", config), "blocks.1.attn.hook_rot_q");
  EXPECT_EQ(Parsed("pre0", config), "blocks.0.mlp.hook_pre");
  EXPECT_EQ(Parsed("mlp_post0", config), "blocks.0.mlp.hook_post");
  EXPECT_EQ(Parsed("mlp_out4", config), "blocks.4.hook_mlp_out");
  EXPECT_EQ(Parsed("scale4ln1", config), "blocks.4.ln1.hook_scale");
  EXPECT_EQ(Parsed("normalized0ln2_post", config),
            "blocks.0.ln2_post.hook_normalized");
  EXPECT_EQ(Parsed("embed", config), "hook_embed");
  EXPECT_EQ(Parsed("scale", config), "ln_final.hook_scale");
  EXPECT_EQ(Parsed("normalized", config), "ln_final.hook_normalized");
  EXPECT_EQ(Parsed("blocks.2.ln2.hook_out", config), "blocks.2.mlp.hook_in");
  EXPECT_EQ(Parsed("ln_final.hook_out", config), "unembed.hook_in");
}

TEST(HookPointTest, WhatTheModelLacksIsNotFoundWithWhatItHas) {
  const ModelConfig config = Gpt2Like();
  for (const char* name :
       {"blocks.0.attn.hook_rot_q", "blocks.0.mlp.hook_pre_linear",
        "blocks.0.ln1_post.hook_scale", "blocks.0.attn.q_norm.hook_scale",
        "blocks.0.hook_nothing", "nothing", "", "blocks", "blocks.", "blocks.0",
        "blocks.0.", "blocks.x.hook_resid_pre", "blocks.-1.hook_resid_pre",
        "blocks.99999999999999999999.hook_resid_pre", "resid_post", "5", "k",
        "hook_resid_pre", "scale4ln9"}) {
    const auto point = ParseHookPoint(name, config);
    EXPECT_EQ(point.status().code(), absl::StatusCode::kNotFound) << name;
    EXPECT_THAT(std::string(point.status().message()),
                HasSubstr("blocks.L.hook_resid_post"));
  }
  ModelConfig parallel = config;
  parallel.parallel_blocks = true;
  EXPECT_FALSE(ParseHookPoint("resid_mid0", parallel).ok());
  EXPECT_TRUE(ParseHookPoint("resid_mid0", config).ok());
  EXPECT_FALSE(ParseHookPoint("hook_pos_embed", GemmaLike()).ok());
}

TEST(HookPointTest, ALayerOutsideTheModelIsInvalid) {
  for (const char* name : {"blocks.6.hook_resid_post", "resid_post6"}) {
    const auto point = ParseHookPoint(name, Gpt2Like());
    EXPECT_EQ(point.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(point.status().message()), HasSubstr("0 to 5"));
  }
}

TEST(HookPointTest, Shapes) {
  const ModelConfig config = GemmaLike();
  const auto shape = [&](const char* name) {
    return HookShape(*ParseHookPoint(name, config), config);
  };
  EXPECT_THAT(shape("q0"), testing::ElementsAre(4, 4));
  EXPECT_THAT(shape("k0"), testing::ElementsAre(2, 4));
  EXPECT_THAT(shape("result0"), testing::ElementsAre(4, 8));
  EXPECT_THAT(shape("pattern0"), testing::ElementsAre(4, -1));
  EXPECT_THAT(shape("scale0ln1"), testing::ElementsAre(1));
  EXPECT_THAT(shape("blocks.0.attn.k_norm.hook_scale"),
              testing::ElementsAre(2, 1));
  EXPECT_THAT(shape("post0"), testing::ElementsAre(32));
  EXPECT_THAT(shape("unembed.hook_out"), testing::ElementsAre(100));
}

}  // namespace
}  // namespace cupola::model
