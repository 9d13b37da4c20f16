#include "server/analysis/run.h"

#include <filesystem>

#include "c10/core/InferenceMode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "tests/files/tiny_model.h"

namespace cupola::analysis {
namespace {

using model::HookKind;
using ::testing::HasSubstr;

// Runs of one prompt under sets that each do something else.
class RunTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string folder = ::testing::TempDir() + "/run_test_model";
    cupola::testing::TinyGpt2().Write(folder);
    auto source = model::ModelSource::Open(folder);
    ASSERT_TRUE(source.ok()) << source.status();
    auto loaded = model::Model::Load(*source, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = new auto(*std::move(loaded));
    std::filesystem::remove_all(folder);
  }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }

  RunTest() {
    for (int i = 0; i < 9; ++i) {
      Intervention add;
      add.change = Change::kAdd;
      add.hook = {HookKind::kResidPre, i % 2};
      add.value = ToArray(at::full({1}, 0.1f * static_cast<float>(i)),
                          storage::DType::kFloat32);
      options_.sets.push_back({add});
    }
    options_.sets.push_back({});
    options_.hooks = {{HookKind::kResidPost, 1}, {HookKind::kPattern, 1}};
    options_.top = 3;
    for (int prompt = 0; prompt < 2; ++prompt) {
      Sequence& sequence = sequences_.emplace_back();
      for (int t = 0; t < 6 + prompt; ++t) sequence.tokens.push_back(7 * t + 3);
      sequence.positions = {1, 4, 5};
      sequence.lists = {{}};
      for (int i = 0; i < 9; ++i) sequence.lists.push_back({i % 5});
    }
  }

  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run() const {
    const c10::InferenceMode inference;
    const Pass pass{model_->get(), nullptr, [] { return absl::OkStatus(); }};
    std::vector<Placed> placed;
    for (const Sequence& sequence : sequences_) {
      placed.push_back({&sequence, static_cast<int64_t>(placed.size())});
    }
    return RunAnalysis(options_, {}).Run(pass, placed);
  }

  static std::shared_ptr<const model::Model>* model_;
  RunOptions options_;
  std::vector<Sequence> sequences_;
};
std::shared_ptr<const model::Model>* RunTest::model_ = nullptr;

TEST_F(RunTest, SetsThatAreSplitAnswerAsTogether) {
  const auto together = Run();
  ASSERT_TRUE(together.ok()) << together.status();
  for (int64_t bytes : {int64_t{1}, int64_t{20'000}}) {
    options_.work_bytes = bytes;
    const auto split = Run();
    ASSERT_TRUE(split.ok()) << split.status();
    ASSERT_EQ(split->size(), together->size());
    for (size_t i = 0; i < split->size(); ++i) {
      ASSERT_EQ((*split)[i].size(), 11 * (kReadoutArrays + 2));
      for (size_t k = 0; k < (*split)[i].size(); ++k) {
        const at::Tensor a = ViewOf((*split)[i][k]);
        const at::Tensor b = ViewOf((*together)[i][k]);
        EXPECT_TRUE(at::allclose(a, b, 1e-5, 1e-5, /*equal_nan=*/true))
            << i << " " << k;
      }
    }
  }
  // They do differ from one another: set 8 adds more than set 6.
  const auto loss = [&](size_t variant) {
    return ViewOf((*together)[0][variant * (kReadoutArrays + 2)]);
  };
  EXPECT_FALSE(at::allclose(loss(9), loss(7)));
  EXPECT_TRUE(at::equal(loss(10).narrow(0, 0, 2), loss(0).narrow(0, 0, 2)));
}

TEST_F(RunTest, MeanLossLeavesOutTheLastToken) {
  const auto each = Run();
  options_.mean_loss = true;
  const auto mean = Run();
  ASSERT_TRUE(each.ok() && mean.ok());
  const at::Tensor losses = ViewOf((*each)[0][0]);
  ASSERT_TRUE(losses[2].isnan().item<bool>());  // position 5 of 6 tokens
  const at::Tensor found = ViewOf((*mean)[0][0]);
  ASSERT_EQ(found.numel(), 1);
  EXPECT_NEAR(found[0].item<float>(),
              losses.narrow(0, 0, 2).mean().item<float>(), 1e-6);
}

}  // namespace
}  // namespace cupola::analysis
