#include "server/dictionary/dictionary_source.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/dictionary/dictionary.h"
#include "tests/dictionary/dictionary_files.h"

namespace cupola::dictionary {
namespace {

using model::Json;
using testing::Config;
using ::testing::HasSubstr;
using testing::NewFolder;
using testing::PairConfig;
using testing::PairTensors;
using testing::RandomTensors;
using testing::SmallModel;
using testing::TensorMap;
using testing::WriteDictionary;

absl::StatusOr<std::shared_ptr<const DictionarySource>> Open(
    const Json& cfg, const TensorMap& tensors,
    const Overrides& overrides = {}) {
  return DictionarySource::Open(WriteDictionary(cfg, tensors), overrides,
                                SmallModel());
}

absl::Status Load(const Json& cfg, const TensorMap& tensors) {
  const auto source = Open(cfg, tensors);
  if (!source.ok()) return source.status();
  return Dictionary::Load(*source, Half::kIn, at::kCPU).status();
}

void ExpectRefused(const absl::Status& status, const std::string& part) {
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

TEST(DictionarySourceTest, OpensEveryArchitecture) {
  for (const char* architecture :
       {"standard", "gated", "jumprelu", "topk", "matching_pursuit",
        "transcoder", "skip_transcoder", "jumprelu_transcoder",
        "jumprelu_skip_transcoder", "topk_transcoder",
        "topk_skip_transcoder"}) {
    const Json cfg = Config(architecture);
    EXPECT_TRUE(Load(cfg, RandomTensors(cfg, 1)).ok()) << architecture;
  }
}

TEST(DictionarySourceTest, MissingFilesAreNotFound) {
  const std::string folder = NewFolder();
  EXPECT_TRUE(absl::IsNotFound(
      DictionarySource::Open(folder, {}, SmallModel()).status()));
  testing::WriteText(folder + "/cfg.json", Config("standard").dump());
  EXPECT_TRUE(absl::IsNotFound(
      DictionarySource::Open(folder, {}, SmallModel()).status()));
  testing::WriteText(folder + "/cfg.json", "{\"d_in\": 24");
  EXPECT_TRUE(absl::IsInvalidArgument(
      DictionarySource::Open(folder, {}, SmallModel()).status()));
}

TEST(DictionarySourceTest, EveryTensorMustBeThere) {
  for (const char* architecture :
       {"standard", "gated", "jumprelu", "topk", "matching_pursuit",
        "jumprelu_skip_transcoder"}) {
    const Json cfg = Config(architecture);
    const TensorMap tensors = RandomTensors(cfg, 1);
    for (const auto& [name, tensor] : tensors) {
      TensorMap fewer = tensors;
      fewer.erase(name);
      ExpectRefused(Load(cfg, fewer), name);
    }
  }
}

TEST(DictionarySourceTest, EveryShapeMustFit) {
  const Json cfg = Config("jumprelu_skip_transcoder");
  const TensorMap tensors = RandomTensors(cfg, 1);
  for (const auto& [name, tensor] : tensors) {
    TensorMap wrong = tensors;
    wrong[name] = at::zeros({3, 5});
    ExpectRefused(Load(cfg, wrong), name);
    ExpectRefused(Load(cfg, wrong), "[3, 5]");
    wrong[name] = tensor.unsqueeze(0);
    ExpectRefused(Load(cfg, wrong), name);
  }
  // W_enc stored transposed has the right number of values.
  TensorMap transposed = tensors;
  transposed["W_enc"] = tensors.at("W_enc").t().contiguous();
  ExpectRefused(Load(cfg, transposed), "[100, 24]");
}

TEST(DictionarySourceTest, TensorsOfAnotherArchitectureAreRefused) {
  TensorMap tensors = RandomTensors(Config("jumprelu"), 1);
  ExpectRefused(Load(Config("standard"), tensors), "threshold");
  ExpectRefused(Load(Config("matching_pursuit"), tensors), "W_enc");
  tensors["unrelated"] = at::ones({2});
  EXPECT_TRUE(Load(Config("jumprelu"), tensors).ok());
  ExpectRefused(Load(Config("standard"), PairTensors(1)), "is_pair");
}

TEST(DictionarySourceTest, ValuesMustBeFinite) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(),
                    std::numeric_limits<float>::infinity()}) {
    for (const char* architecture : {"jumprelu_skip_transcoder", "gated"}) {
      const Json cfg = Config(architecture);
      const TensorMap tensors = RandomTensors(cfg, 1);
      for (const auto& [name, tensor] : tensors) {
        TensorMap wrong = tensors;
        wrong[name] = tensor.clone();
        wrong[name].view({-1}).narrow(0, 1, 3).fill_(bad);
        ExpectRefused(Load(cfg, wrong), name);
        ExpectRefused(Load(cfg, wrong), "3 of");
      }
    }
  }
}

TEST(DictionarySourceTest, ScalingFactorNeedsItsFlag) {
  Json cfg = Config("standard");
  TensorMap tensors = RandomTensors(cfg, 1);
  tensors["scaling_factor"] = at::ones({100});
  EXPECT_TRUE(Load(cfg, tensors).ok());
  tensors["scaling_factor"][3] = 2;
  ExpectRefused(Load(cfg, tensors), "finetuning_scaling_factor");
  cfg["finetuning_scaling_factor"] = true;
  EXPECT_TRUE(Load(cfg, tensors).ok());
  tensors["scaling_factor"] = at::ones({99});
  ExpectRefused(Load(cfg, tensors), "[99]");
}

TEST(DictionarySourceTest, DigestFollowsTensorsConfigurationAndOverrides) {
  const Json cfg = Config("standard");
  const TensorMap tensors = RandomTensors(cfg, 1);
  const storage::Digest digest = (*Open(cfg, tensors))->digest();
  EXPECT_EQ((*Open(cfg, tensors))->digest(), digest);  // another folder
  Overrides fold;
  fold.fold_w_dec_norm = true;
  EXPECT_NE((*Open(cfg, tensors, fold))->digest(), digest);
  Json other = cfg;
  other["normalize_activations"] = "layer_norm";
  EXPECT_NE((*Open(other, tensors))->digest(), digest);
  TensorMap changed = tensors;
  changed["b_dec"] = tensors.at("b_dec").clone();
  changed["b_dec"][0] += 1e-6;
  EXPECT_NE((*Open(cfg, changed))->digest(), digest);
}

TEST(DictionarySourceTest, PairNamesItsHalves) {
  const auto source = Open(PairConfig(), PairTensors(1));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->TensorName("W_enc", Half::kIn), "_W_enc");
  EXPECT_EQ((*source)->TensorName("b_dec", Half::kOut), "_b_dec_out");
  EXPECT_FALSE((*source)->manifest().has_mlp);
  EXPECT_TRUE(absl::IsFailedPrecondition((*source)->ReadMlp().status()));
  // Two halves of W_enc, W_dec, b_enc and b_dec.
  EXPECT_EQ((*source)->WeightBytes(), 2 * 4 * (2 * 24 * 100 + 100 + 24));

  TensorMap missing = PairTensors(1);
  missing.erase("_b_enc_out");
  ExpectRefused(Load(PairConfig(), missing), "_b_enc_out");
}

TEST(DictionarySourceTest, OnlyAPairHasAnOutputHalf) {
  const Json cfg = Config("standard");
  const auto source = Open(cfg, RandomTensors(cfg, 1));
  ExpectRefused(Dictionary::Load(*source, Half::kOut, at::kCPU).status(),
                "pair");
}

TEST(DictionarySourceTest, PairMayStoreItsMlp) {
  TensorMap tensors = PairTensors(1);
  Overrides file;
  file.mlp_source = MlpSource::kFile;
  ExpectRefused(Open(PairConfig(), tensors, file).status(), "mlp.W_in");

  tensors["mlp.W_in"] = testing::RandomRows(24, 96, 1).to(at::kHalf);
  tensors["mlp.b_in"] = at::zeros({96});
  tensors["mlp.W_out"] = testing::RandomRows(96, 24, 2);
  tensors["mlp.b_out"] = at::zeros({24});
  const auto source = Open(PairConfig(), tensors, file);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE((*source)->manifest().has_mlp);
  const absl::StatusOr<MlpWeights> mlp = (*source)->ReadMlp();
  ASSERT_TRUE(mlp.ok()) << mlp.status();
  EXPECT_TRUE(at::equal(mlp->W_in, tensors["mlp.W_in"].to(at::kFloat)));
  EXPECT_TRUE(at::equal(mlp->W_out, tensors["mlp.W_out"]));

  tensors["mlp.W_out"] = at::zeros({90, 24});
  ExpectRefused(Open(PairConfig(), tensors).status(), "mlp.W_out");
}

}  // namespace
}  // namespace cupola::dictionary
