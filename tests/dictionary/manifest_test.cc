#include "server/dictionary/manifest.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/dictionary/dictionary_files.h"

namespace cupola::dictionary {
namespace {

using model::HookKind;
using model::Json;
using testing::Config;
using ::testing::HasSubstr;
using testing::PairConfig;
using testing::SmallModel;

absl::StatusOr<Manifest> Parse(const Json& cfg,
                               const Overrides& overrides = {}) {
  return ParseManifest(cfg, overrides, SmallModel());
}

Manifest Good(const Json& cfg, const Overrides& overrides = {}) {
  absl::StatusOr<Manifest> manifest = Parse(cfg, overrides);
  EXPECT_TRUE(manifest.ok()) << manifest.status();
  return manifest.value_or(Manifest());
}

void ExpectRefused(const Json& cfg, const std::string& part,
                   const Overrides& overrides = {}) {
  const absl::StatusOr<Manifest> manifest = Parse(cfg, overrides);
  ASSERT_FALSE(manifest.ok()) << part;
  EXPECT_TRUE(absl::IsInvalidArgument(manifest.status()) ||
              absl::IsUnimplemented(manifest.status()))
      << manifest.status();
  EXPECT_THAT(std::string(manifest.status().message()), HasSubstr(part));
}

Json With(Json cfg, const char* key, const Json& value) {
  if (cfg.contains("metadata") && cfg["metadata"].contains(key)) {
    cfg["metadata"][key] = value;
  } else {
    cfg[key] = value;
  }
  return cfg;
}

Json Without(Json cfg, const char* key) {
  cfg.erase(key);
  if (cfg.contains("metadata")) cfg["metadata"].erase(key);
  return cfg;
}

Json FlatConfig() {
  return {
      {"d_in", 24}, {"d_sae", 100}, {"hook_point", "blocks.1.hook_resid_pre"}};
}

TEST(ManifestTest, ReadsEveryArchitecture) {
  const struct {
    const char* name;
    Architecture architecture;
    Kind kind;
    bool skip;
  } kCases[] = {
      {"standard", Architecture::kStandard, Kind::kSae, false},
      {"gated", Architecture::kGated, Kind::kSae, false},
      {"jumprelu", Architecture::kJumpRelu, Kind::kSae, false},
      {"topk", Architecture::kTopK, Kind::kSae, false},
      {"matching_pursuit", Architecture::kMatchingPursuit, Kind::kSae, false},
      {"transcoder", Architecture::kStandard, Kind::kTranscoder, false},
      {"skip_transcoder", Architecture::kStandard, Kind::kTranscoder, true},
      {"jumprelu_transcoder", Architecture::kJumpRelu, Kind::kTranscoder,
       false},
      {"jumprelu_skip_transcoder", Architecture::kJumpRelu, Kind::kTranscoder,
       true},
      {"topk_transcoder", Architecture::kTopK, Kind::kTranscoder, false},
      {"topk_skip_transcoder", Architecture::kTopK, Kind::kTranscoder, true},
  };
  for (const auto& expected : kCases) {
    const Manifest manifest = Good(Config(expected.name));
    EXPECT_EQ(manifest.architecture, expected.architecture) << expected.name;
    EXPECT_EQ(manifest.kind, expected.kind) << expected.name;
    EXPECT_EQ(manifest.skip, expected.skip) << expected.name;
    EXPECT_EQ(manifest.architecture_name, expected.name);
    EXPECT_EQ(manifest.d_in, 24);
    EXPECT_EQ(manifest.d_out, 24);
    EXPECT_EQ(manifest.d_sae, 100);
    EXPECT_EQ(manifest.declared_model_name, "small");
    EXPECT_EQ(manifest.context_size, 64);
    EXPECT_TRUE(manifest.prepend_bos);
    EXPECT_TRUE(manifest.declares_prepend_bos);
  }
}

TEST(ManifestTest, FlatConfigurationHasTheDefaultsOfItsTime) {
  const Manifest manifest = Good(FlatConfig());
  EXPECT_EQ(manifest.architecture, Architecture::kStandard);
  EXPECT_TRUE(manifest.apply_b_dec_to_input);
  EXPECT_TRUE(manifest.prepend_bos);
  EXPECT_TRUE(manifest.declares_prepend_bos);
  EXPECT_EQ(manifest.normalize, Normalize::kNone);
  EXPECT_FALSE(manifest.reshape_hook_z);
  EXPECT_EQ(manifest.hook_in.kind, HookKind::kResidPre);
  EXPECT_EQ(manifest.hook_in.layer, 1);
}

TEST(ManifestTest, FlatConfigurationOfHookZIsFlattened) {
  EXPECT_TRUE(Good(With(FlatConfig(), "hook_point", "blocks.0.attn.hook_z"))
                  .reshape_hook_z);
}

TEST(ManifestTest, FlatNormalizationMayBeABoolean) {
  const Json cfg = FlatConfig();
  EXPECT_EQ(Good(With(cfg, "normalize_activations", true)).normalize,
            Normalize::kExpectedAverageOnlyIn);
  EXPECT_EQ(Good(With(cfg, "normalize_activations", false)).normalize,
            Normalize::kNone);
  EXPECT_EQ(Good(With(cfg, "normalize_activations", nullptr)).normalize,
            Normalize::kNone);
  ExpectRefused(With(Config("standard"), "normalize_activations", true),
                "normalize_activations");
}

TEST(ManifestTest, FlatTopKActivationMakesTheArchitecture) {
  Json cfg = FlatConfig();
  cfg["architecture"] = "standard";
  cfg["activation_fn_str"] = "topk";
  cfg["activation_fn_kwargs"] = {{"k", 8}};
  EXPECT_EQ(Good(cfg).architecture, Architecture::kTopK);
  EXPECT_EQ(Good(cfg).k, 8);
  cfg["activation_fn_kwargs"] = Json::object();
  ExpectRefused(cfg, "activation_fn_kwargs");
  cfg["activation_fn_str"] = "tanh-relu";
  ExpectRefused(cfg, "tanh-relu");
}

TEST(ManifestTest, VersionDecidesTheGeneration) {
  // Before 6.0.0rc0, "topk" as an activation function counts; after, it is not
  // looked at.
  Json cfg = FlatConfig();
  cfg["architecture"] = "standard";
  cfg["activation_fn"] = "topk";
  cfg["activation_fn_kwargs"] = {{"k", 8}};
  cfg["hook_name"] = cfg["hook_point"];
  for (const char* old :
       {"3.11.0", "5.10.7", "6.0.0a1", "6.0.0-beta.2", "6.0.0.dev3", "6.0b1"}) {
    EXPECT_EQ(Good(With(cfg, "sae_lens_version", old)).architecture,
              Architecture::kTopK)
        << old;
  }
  for (const char* current : {"6.0.0-rc.0", "6.0.0rc5", "6.0.0", "6.0", "6",
                              "6.0.1", "6.54.12", "10.0.0"}) {
    EXPECT_EQ(Good(With(cfg, "sae_lens_version", current)).architecture,
              Architecture::kStandard)
        << current;
  }
  ExpectRefused(With(cfg, "sae_lens_version", "next"), "sae_lens_version");
  ExpectRefused(With(cfg, "sae_lens_version", 6), "sae_lens_version");
}

TEST(ManifestTest, PairDerivesItsOutput) {
  const Manifest manifest = Good(PairConfig());
  EXPECT_EQ(manifest.kind, Kind::kPair);
  EXPECT_EQ(manifest.architecture, Architecture::kTopK);
  EXPECT_EQ(manifest.k, 8);
  EXPECT_EQ(manifest.hook_in.kind, HookKind::kLn2Normalized);
  EXPECT_EQ(manifest.hook_out.kind, HookKind::kMlpOut);
  EXPECT_EQ(manifest.hook_out.layer, 1);
  EXPECT_EQ(manifest.hook_out_name, "blocks.1.hook_mlp_out");
  EXPECT_FALSE(manifest.apply_b_dec_to_input);
  EXPECT_TRUE(
      Good(Without(PairConfig(), "apply_b_dec_to_input")).apply_b_dec_to_input);
  EXPECT_EQ(Good(Without(PairConfig(), "is_pair")).kind, Kind::kPair);
  ExpectRefused(With(PairConfig(), "hook_name", "blocks.1.hook_resid_pre"),
                "blocks.1.hook_resid_pre");
  ExpectRefused(With(PairConfig(), "randomize_llm_weights", true),
                "randomize_llm_weights");
}

TEST(ManifestTest, TapMovesBehindTheGain) {
  Overrides behind;
  behind.tap = Tap::kPostAffine;
  EXPECT_EQ(Good(PairConfig(), behind).hook_in.kind, HookKind::kLn2Out);
  EXPECT_EQ(Good(PairConfig(), behind).tap, Tap::kPostAffine);
  EXPECT_EQ(Good(PairConfig(), behind).hook_in_name,
            "blocks.1.ln2.hook_normalized");
  EXPECT_EQ(Good(PairConfig()).tap, Tap::kPreAffine);
  EXPECT_NE(Good(PairConfig()).fingerprint,
            Good(PairConfig(), behind).fingerprint);

  const Json at_mlp = With(PairConfig(), "hook_name", "blocks.1.mlp.hook_in");
  EXPECT_EQ(Good(at_mlp).tap, Tap::kPostAffine);
  Overrides before;
  before.tap = Tap::kPreAffine;
  ExpectRefused(at_mlp, "PRE_AFFINE", before);
  ExpectRefused(Config("standard"), "POST_AFFINE", behind);
}

TEST(ManifestTest, HooksMayBeOverridden) {
  Overrides overrides;
  overrides.hook_in = "blocks.0.ln1.hook_normalized";
  overrides.hook_out = "blocks.0.hook_attn_out";
  const Manifest manifest =
      Good(Without(Config("transcoder"), "hook_name_out"), overrides);
  EXPECT_EQ(manifest.hook_in.kind, HookKind::kLn1Normalized);
  EXPECT_EQ(manifest.hook_out.kind, HookKind::kAttnOut);
  ExpectRefused(Without(Config("transcoder"), "hook_name_out"),
                "hook_name_out");
  ExpectRefused(Without(Config("standard"), "hook_name"), "hook_name");
  ExpectRefused(Config("standard"), "hook_out", overrides);
}

TEST(ManifestTest, ProcessingIsWhatTheFileDeclares) {
  EXPECT_EQ(Good(Config("standard")).processing, model::Processing::kRaw);
  Json cfg = Config("standard");
  cfg["metadata"]["model_from_pretrained_kwargs"] = {
      {"center_writing_weights", true}};
  EXPECT_EQ(Good(cfg).processing, model::Processing::kFolded);
  Overrides overrides;
  overrides.processing = model::Processing::kRaw;
  EXPECT_EQ(Good(cfg, overrides).processing, model::Processing::kRaw);
  cfg["metadata"]["model_from_pretrained_kwargs"] = {
      {"center_writing_weights", false}};
  EXPECT_EQ(Good(cfg).processing, model::Processing::kRaw);
}

TEST(ManifestTest, BosComesFromCatalogThenFileThenModel) {
  EXPECT_FALSE(
      Good(With(Config("standard"), "prepend_bos", false)).prepend_bos);
  const Manifest open = Good(Without(Config("standard"), "prepend_bos"));
  EXPECT_FALSE(open.declares_prepend_bos);
  EXPECT_EQ(open.prepend_bos, SmallModel().default_prepend_bos);
  Overrides overrides;
  overrides.prepend_bos = false;
  EXPECT_FALSE(Good(Config("standard"), overrides).prepend_bos);
}

TEST(ManifestTest, RefusesWhatItCannotServe) {
  const Json standard = Config("standard"), topk = Config("topk");
  ExpectRefused(Json::array(), "object");
  ExpectRefused(Without(standard, "architecture"), "architecture");
  ExpectRefused(With(standard, "architecture", "temporal"), "temporal");
  ExpectRefused(With(standard, "architecture", "abstopk"), "matching_pursuit");
  ExpectRefused(With(standard, "metadata", 3), "metadata");
  ExpectRefused(Without(standard, "d_in"), "d_in");
  ExpectRefused(With(standard, "d_in", "24"), "d_in");
  ExpectRefused(With(standard, "d_in", 24.5), "d_in");
  ExpectRefused(With(standard, "d_sae", -3), "-3");
  ExpectRefused(With(standard, "d_sae", 0), "d_sae");
  ExpectRefused(With(standard, "d_sae", int64_t{1} << 40), "d_sae");
  ExpectRefused(Without(topk, "k"), "k");
  ExpectRefused(With(topk, "k", 0), "k is 0");
  ExpectRefused(With(topk, "k", -4), "k is -4");
  ExpectRefused(With(topk, "k", 101), "100");
  ExpectRefused(With(standard, "normalize_activations", "covariance_whitening"),
                "covariance_whitening");
  ExpectRefused(With(standard, "apply_b_dec_to_input", "yes"),
                "apply_b_dec_to_input");
  ExpectRefused(With(Config("transcoder"), "apply_b_dec_to_input", true),
                "apply_b_dec_to_input");
  ExpectRefused(Without(Config("transcoder"), "d_out"), "d_out");
  ExpectRefused(With(standard, "reshape_activations", "hook_q"), "hook_q");
  ExpectRefused(With(standard, "reshape_activations", "hook_z"), "hook_z");
  ExpectRefused(With(standard, "hook_head_index", 2), "hook_head_index");
  ExpectRefused(With(standard, "norm_scaling_factor", -1), "norm_scaling");
  ExpectRefused(With(standard, "context_size", -1), "context_size");
  ExpectRefused(With(Config("matching_pursuit"), "max_iterations", -1),
                "max_iterations");
}

TEST(ManifestTest, RefusesAnotherModelWithBothNumbers) {
  ExpectRefused(With(Config("standard"), "d_in", 768), "768");
  ExpectRefused(With(Config("standard"), "d_in", 768), "24");
  ExpectRefused(With(Config("transcoder"), "d_out", 32), "32");
  ExpectRefused(
      With(Config("standard"), "hook_name", "blocks.7.hook_resid_pre"), "7");
  ExpectRefused(With(Config("standard"), "hook_name", "blocks.1.hook_nothing"),
                "hook_nothing");
  ExpectRefused(
      With(Config("standard"), "hook_name", "blocks.1.attn.hook_pattern"),
      "sequence");
}

TEST(ManifestTest, HeadsAreFlattenedOrRefused) {
  const Json z =
      With(With(Config("standard"), "hook_name", "blocks.1.attn.hook_z"),
           "reshape_activations", "hook_z");
  EXPECT_TRUE(Good(z).reshape_hook_z);
  ExpectRefused(With(z, "d_in", 6), "6");  // one head
}

TEST(ManifestTest, FoldIsRefusedWhereItChangesTheSelection) {
  Overrides fold;
  fold.fold_w_dec_norm = true;
  EXPECT_TRUE(Good(Config("jumprelu"), fold).fold_w_dec_norm);
  EXPECT_TRUE(
      Good(With(Config("topk"), "rescale_acts_by_decoder_norm", true), fold)
          .fold_w_dec_norm);
  ExpectRefused(Config("topk"), "fold_w_dec_norm", fold);
  ExpectRefused(Config("matching_pursuit"), "fold_w_dec_norm", fold);
  ExpectRefused(PairConfig(), "fold_w_dec_norm", fold);
}

TEST(ManifestTest, OtherOverridesAreChecked) {
  Overrides half;
  half.dtype = at::kHalf;
  ExpectRefused(Config("standard"), "dtype", half);
  Overrides file;
  file.mlp_source = MlpSource::kFile;
  ExpectRefused(Config("standard"), "mlp_source", file);
  EXPECT_EQ(Good(PairConfig(), file).mlp_source, MlpSource::kFile);
}

TEST(ManifestTest, FingerprintFollowsWhatChangesAnswers) {
  const std::string base = Good(Config("standard")).fingerprint;
  EXPECT_EQ(Good(Config("standard")).fingerprint, base);
  EXPECT_EQ(Good(With(Config("standard"), "model_name", "other")).fingerprint,
            base);
  EXPECT_NE(
      Good(With(Config("standard"), "apply_b_dec_to_input", false)).fingerprint,
      base);
  EXPECT_NE(
      Good(With(Config("standard"), "normalize_activations", "layer_norm"))
          .fingerprint,
      base);
  EXPECT_NE(
      Good(With(Config("standard"), "hook_name", "blocks.0.hook_resid_pre"))
          .fingerprint,
      base);
  Overrides overrides;
  overrides.fold_w_dec_norm = true;
  EXPECT_NE(Good(Config("standard"), overrides).fingerprint, base);
  overrides = {};
  overrides.dtype = at::kBFloat16;
  EXPECT_NE(Good(Config("standard"), overrides).fingerprint, base);
}

}  // namespace
}  // namespace cupola::dictionary
