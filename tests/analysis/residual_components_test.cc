#include "server/analysis/residual_components.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/analysis/attribution.h"

namespace cupola::analysis {
namespace {

using enum model::HookKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

model::ModelConfig Config(bool parallel = false) {
  model::ModelConfig config;
  config.n_layers = 2;
  config.n_heads = 2;
  config.d_mlp = 3;
  config.parallel_blocks = parallel;
  return config;
}

Decomposition At(ComponentLevel level, int layer, bool mlp_input = false) {
  return {.level = level, .layer = layer, .mlp_input = mlp_input, .splits = {}};
}

TEST(ResidualComponents, HaveTransformerLensLabels) {
  const auto labels = [](const Decomposition& d) {
    return ComponentLabels(d, Config());
  };
  EXPECT_THAT(labels(At(ComponentLevel::kLayers, 1, true)),
              ElementsAre("embed", "pos_embed", "0_attn_out", "0_mlp_out",
                          "1_attn_out"));
  EXPECT_THAT(labels(At(ComponentLevel::kHeads, 2)),
              ElementsAre("L0H0", "L0H1", "L1H0", "L1H1", "0_mlp_out",
                          "1_mlp_out", "embed", "pos_embed", "bias"));
  EXPECT_THAT(labels(At(ComponentLevel::kNeurons, 1)),
              ElementsAre("L0H0", "L0H1", "L0N0", "L0N1", "L0N2", "embed",
                          "pos_embed", "bias"));
  EXPECT_EQ(ComponentCount(At(ComponentLevel::kNeurons, 2), Config()), 13);
}

TEST(ResidualComponents, LeaveOutTheAttentionThatAParallelMlpDoesNotRead) {
  const Decomposition d = At(ComponentLevel::kLayers, 1, true);
  EXPECT_THAT(ComponentLabels(d, Config(/*parallel=*/true)),
              ElementsAre("embed", "pos_embed", "0_attn_out", "0_mlp_out"));
  EXPECT_EQ(ResidualOf(d, Config(true)), (model::HookPoint{kResidPre, 1}));
  EXPECT_EQ(ResidualOf(d, Config()), (model::HookPoint{kResidMid, 1}));
}

TEST(ResidualComponents, SplitAtAResidualReplacesAllBefore) {
  Decomposition d = At(ComponentLevel::kLayers, 2);
  d.splits = {{kResidMid, 0}};
  EXPECT_THAT(ComponentLabels(d, Config()),
              ElementsAre("0_mid_reconstruction", "0_mid_error", "0_mlp_out",
                          "1_attn_out", "1_mlp_out"));
  d.splits = {{kMlpPost, 0}};
  EXPECT_THAT(ComponentLabels(d, Config()),
              ElementsAre("embed", "pos_embed", "0_attn_out",
                          "0_mlp_out_reconstruction", "0_mlp_out_error",
                          "1_attn_out", "1_mlp_out"));
}

TEST(ResidualComponents, SplitAtEveryLevelAndSeveralTimes) {
  Decomposition d = At(ComponentLevel::kHeads, 2);
  d.splits = {{kZ, 1}, {kMlpOut, 0}};
  EXPECT_TRUE(CheckDecomposition(d, Config()).ok());
  EXPECT_THAT(ComponentLabels(d, Config()),
              ElementsAre("L0H0", "L0H1", "1_attn_out_reconstruction",
                          "1_attn_out_error", "0_mlp_out_reconstruction",
                          "0_mlp_out_error", "1_mlp_out", "embed", "pos_embed",
                          "bias"));
  d = At(ComponentLevel::kNeurons, 2);
  d.splits = {{kResidPost, 0}, {kMlpPost, 1}};
  EXPECT_TRUE(CheckDecomposition(d, Config()).ok());
  EXPECT_THAT(
      ComponentLabels(d, Config()),
      ElementsAre("0_post_reconstruction", "0_post_error", "L1H0", "L1H1",
                  "1_mlp_out_reconstruction", "1_mlp_out_error", "bias"));
  EXPECT_EQ(ComponentCount(d, Config()), 7);
  // What one dictionary stands for is no component for another.
  for (const model::HookPoint& second :
       {model::HookPoint{kMlpOut, 1}, model::HookPoint{kAttnOut, 0},
        model::HookPoint{kResidPost, 1}}) {
    d.splits = {{kMlpPost, 1}, second};
    if (second.kind == kAttnOut) d.splits[0] = {kResidPost, 0};
    EXPECT_THAT(std::string(CheckDecomposition(d, Config()).message()),
                HasSubstr("split_dictionaries[1]"));
  }
}

TEST(ResidualComponents, RefuseWhatTheResidualLacks) {
  const auto message = [](const Decomposition& d) {
    return std::string(CheckDecomposition(d, Config()).message());
  };
  EXPECT_TRUE(CheckDecomposition(At(ComponentLevel::kHeads, 2), Config()).ok());
  EXPECT_THAT(message(At(ComponentLevel::kHeads, 3)), HasSubstr("layer is 3"));
  EXPECT_THAT(message(At(ComponentLevel::kHeads, 2, true)),
              HasSubstr("mlp_input"));
  Decomposition d = At(ComponentLevel::kLayers, 1);
  for (const model::HookPoint later :
       {model::HookPoint{kAttnOut, 1}, model::HookPoint{kResidPost, 1},
        model::HookPoint{kQ, 0}}) {
    d.splits = {later};
    EXPECT_THAT(message(d), HasSubstr(model::HookName(later)));
  }
}

TEST(Attribution, IdentityTellsQuestionsApart) {
  AttributionQuery query;
  query.tokens = 2;
  const auto identity = [](const AttributionQuery& q) {
    return AttributionAnalysis::Identity(
        {}, dictionary::Half::kIn,
        std::vector<storage::Digest>(q.decomposition.splits.size()), q);
  };
  const auto base = identity(query);
  std::vector<AttributionQuery> others(9, query);
  others[0].tokens = 1;
  others[1].differences = true;
  others[2].gain = false;
  others[3].decomposition.level = ComponentLevel::kHeads;
  others[4].decomposition.layer = 1;
  others[5].decomposition.mlp_input = true;
  others[6].decomposition.splits = {{kMlpOut, 0}};
  others[7].mean = true;
  others[8].reference.bytes = "mean";
  for (const AttributionQuery& other : others) EXPECT_NE(identity(other), base);
  EXPECT_EQ(identity(query), base);
}

}  // namespace
}  // namespace cupola::analysis
