#include "server/analysis/activations.h"

#include "gtest/gtest.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"

namespace cupola::analysis {
namespace {

const model::HookPoint kPattern{model::HookKind::kPattern, 1};
const model::HookPoint kResid{model::HookKind::kResidPre, 1};

TEST(ActivationsAnalysis, CutsPaddingFromAttentionAndPutsPositionsFirst) {
  model::ForwardResult forward;
  // [batch 1, heads 2, queries 3, keys 3]
  forward.captures[kPattern] = at::arange(18, at::kFloat).reshape({1, 2, 3, 3});
  forward.captures[kResid] = at::arange(6, at::kFloat).reshape({1, 3, 2});
  Sequence prompt;
  prompt.tokens = {5, 6};  // one of the three positions is padding
  prompt.positions = {1};
  const ActivationsAnalysis analysis({kPattern, kResid},
                                     storage::DType::kFloat32);
  const Pass pass{nullptr, &forward, [] { return absl::OkStatus(); }};
  auto records = analysis.Run(pass, {{&prompt, 0}});
  ASSERT_TRUE(records.ok());
  ASSERT_EQ(records->size(), 1u);
  // [positions 1, heads 2, keys 2]
  EXPECT_TRUE(at::equal(ViewOf((*records)[0][0]),
                        at::tensor({3.f, 4.f, 12.f, 13.f}).reshape({1, 2, 2})));
  EXPECT_TRUE(at::equal(ViewOf((*records)[0][1]),
                        at::tensor({2.f, 3.f}).reshape({1, 2})));
}

TEST(ActivationsAnalysis, IdentityTellsQuestionsApart) {
  const auto identity = [](std::vector<model::HookPoint> hooks,
                           storage::DType dtype) {
    return ActivationsAnalysis::Identity(hooks, dtype);
  };
  const auto base = identity({kPattern, kResid}, storage::DType::kFloat32);
  EXPECT_EQ(base, identity({kPattern, kResid}, storage::DType::kFloat32));
  EXPECT_NE(base, identity({kResid, kPattern}, storage::DType::kFloat32));
  EXPECT_NE(base, identity({kResid}, storage::DType::kFloat32));
  EXPECT_NE(base, identity({kPattern, kResid}, storage::DType::kBFloat16));
}

}  // namespace
}  // namespace cupola::analysis
