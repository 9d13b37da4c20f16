#include "server/analysis/intervention.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/analysis/edits.h"
#include "server/analysis/tensor_io.h"

namespace cupola::analysis {
namespace {

using model::HookKind;
using ::testing::HasSubstr;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.n_layers = 2;
  config.d_model = 6;
  config.n_heads = 3;
  config.n_kv_heads = 1;
  config.d_head = 2;
  config.d_mlp = 8;
  return config;
}

Intervention Make(Change change, HookKind kind, std::vector<float> value = {}) {
  Intervention intervention;
  intervention.change = change;
  intervention.hook = {kind, 1};
  if (!value.empty()) {
    intervention.value =
        ToArray(at::tensor(value, at::kFloat), storage::DType::kFloat32);
  }
  return intervention;
}

// x after one edit of its single row at `positions`.
at::Tensor Apply(const Intervention& intervention,
                 std::vector<int64_t> positions, at::Tensor x,
                 at::Tensor source = {}) {
  const std::vector<std::vector<RowEdit>> rows = {
      {{&intervention, std::move(positions), std::move(source)}}};
  const Dictionaries none;
  Edits edits(none, rows);
  EXPECT_EQ(edits.points(), std::set{intervention.hook});
  x = x.clone();
  EXPECT_TRUE(edits.Apply(intervention.hook, &x).ok());
  return x;
}

TEST(Intervention, ChangesItsHeadsNeuronsAndPositionsAlone) {
  const at::Tensor x = at::arange(1, 25, at::kFloat).view({1, 4, 3, 2});
  Intervention zero = Make(Change::kZero, HookKind::kZ);
  zero.heads = {2, 0};
  zero.neurons = {1};
  at::Tensor expected = x.clone();
  for (int64_t position : {1, 3}) {
    for (int64_t head : {0, 2}) expected[0][position][head][1] = 0;
  }
  EXPECT_TRUE(at::equal(Apply(zero, {1, 3}, x), expected));
}

TEST(Intervention, TakesOneNumberOneVectorPerHeadOrAllValues) {
  const at::Tensor x = at::zeros({1, 2, 3, 2});
  const auto set = [&](std::vector<float> value) {
    return Apply(Make(Change::kSet, HookKind::kZ, std::move(value)), {1}, x)[0];
  };
  EXPECT_EQ(set({5}).sum().item<float>(), 30);
  EXPECT_TRUE(at::equal(set({1, 2})[1], at::tensor({1.f, 2.f}).repeat({3, 1})));
  EXPECT_TRUE(at::equal(set({1, 2, 3, 4, 5, 6})[1],
                        at::arange(1, 7, at::kFloat).view({3, 2})));
  EXPECT_EQ(set({5})[0].abs().sum().item<float>(), 0);
}

TEST(Intervention, ProjectsOutPerHeadOrAsAWhole) {
  const at::Tensor x = at::randn({1, 2, 3, 2});
  const at::Tensor v = at::tensor({3.f, 4.f});
  at::Tensor y = Apply(Make(Change::kProjectOut, HookKind::kZ, {3, 4}), {0}, x);
  EXPECT_LT(y[0][0].matmul(v).abs().max().item<float>(), 1e-5);
  EXPECT_TRUE(at::equal(y[0][1], x[0][1]));
  y = Apply(Make(Change::kProjectOut, HookKind::kZ, {1, 2, 3, 4, 5, 6}), {0},
            x);
  EXPECT_LT(
      y[0][0].flatten().dot(at::arange(1, 7, at::kFloat)).abs().item<float>(),
      1e-5);
  EXPECT_GT(
      y[0][0].select(0, 0).dot(at::tensor({1.f, 2.f})).abs().item<float>(),
      1e-3);
}

TEST(Intervention, EditsOfOnePointHappenInOrder) {
  const Intervention set = Make(Change::kSet, HookKind::kResidPre, {2});
  Intervention scale = Make(Change::kScale, HookKind::kResidPre);
  scale.factor = 5;
  Intervention add = Make(Change::kAdd, HookKind::kResidPre, {1});
  add.factor = 3;
  const std::vector<std::vector<RowEdit>> rows = {
      {{&set, {0}, {}}, {&scale, {0}, {}}, {&add, {0}, {}}}, {{&add, {1}, {}}}};
  const Dictionaries none;
  Edits edits(none, rows);
  at::Tensor x = at::ones({2, 2, 6});
  ASSERT_TRUE(edits.Apply(set.hook, &x).ok());
  EXPECT_EQ(x[0][0][0].item<float>(), 13);
  EXPECT_EQ(x[0][1][0].item<float>(), 1);
  EXPECT_EQ(x[1][1][5].item<float>(), 4);
}

TEST(Intervention, ChangesQueriesOfSquarePoints) {
  Intervention zero = Make(Change::kZero, HookKind::kPattern);
  zero.heads = {1};
  const at::Tensor y = Apply(zero, {2}, at::ones({1, 3, 4, 4}));
  EXPECT_EQ(y[0][1][2].sum().item<float>(), 0);
  EXPECT_EQ(y.sum().item<float>(), 44);
}

TEST(Intervention, RefusesWhatDoesNotFit) {
  const auto refused = [](const Intervention& intervention, const char* what) {
    const absl::Status status =
        CheckIntervention(intervention, nullptr, Config(), "interventions[1]");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  Intervention heads = Make(Change::kZero, HookKind::kZ);
  heads.heads = {3};
  refused(heads, "interventions[1].heads: 3 is not below 3");
  heads.heads = {-1};
  refused(heads, "interventions[1].heads: -1");
  refused(Make(Change::kSet, HookKind::kResidPre, {1, 2}),
          "interventions[1].value: 2 numbers");
  refused(Make(Change::kProjectOut, HookKind::kResidPre, {0}), "all zero");
  refused(Make(Change::kPatch, HookKind::kPattern), "cannot be patched");
  EXPECT_TRUE(CheckIntervention(Make(Change::kSet, HookKind::kPattern, {1}),
                                nullptr, Config(), "x")
                  .ok());
}

TEST(Intervention, FindsContradictions) {
  const Intervention zero = Make(Change::kZero, HookKind::kZ);
  Intervention set = Make(Change::kSet, HookKind::kZ, {1});
  const auto agree = [&](std::vector<int64_t> a, std::vector<int64_t> b) {
    return CheckAgreement({{&zero, a, {}, {}}, {&set, b, {}, {}}}, {"a", "b"});
  };
  EXPECT_TRUE(agree({0, 1}, {2}).ok());
  EXPECT_THAT(std::string(agree({0, 1}, {1, 2}).message()),
              HasSubstr("b.positions: contradicts a"));
  set.change = Change::kAdd;
  EXPECT_TRUE(agree({0, 1}, {1, 2}).ok());
}

// A value as a request brings it, fitted to its point.
Intervention Fitted(Change change, HookKind kind, const at::Tensor& value,
                    std::vector<int64_t> heads = {},
                    std::vector<int64_t> neurons = {}) {
  Intervention intervention = Make(change, kind);
  intervention.value = ToArray(value, storage::DType::kFloat32);
  intervention.heads = std::move(heads);
  intervention.neurons = std::move(neurons);
  FitValue(Config(), &intervention);
  return intervention;
}

TEST(Intervention, TakesARowPerPosition) {
  const at::Tensor rows = at::arange(1, 13, at::kFloat).view({2, 3, 2});
  const Intervention set = Fitted(Change::kSet, HookKind::kZ, rows);
  ASSERT_TRUE(set.per_position);
  ASSERT_TRUE(CheckIntervention(set, nullptr, Config(), "x").ok());
  const std::vector<std::vector<RowEdit>> edits = {
      {{&set, {1, 3}, {}, {1, 0}}}};
  const Dictionaries none;
  Edits both(none, edits);
  at::Tensor x = at::zeros({1, 4, 3, 2});
  ASSERT_TRUE(both.Apply(set.hook, &x).ok());
  EXPECT_TRUE(at::equal(x[0][1], rows[1]));
  EXPECT_TRUE(at::equal(x[0][3], rows[0]));
  EXPECT_EQ(x[0][0].abs().sum().item<float>(), 0);
  // Projected out, each position has a direction of its own.
  const Intervention out = Fitted(Change::kProjectOut, HookKind::kZ, rows);
  const std::vector<std::vector<RowEdit>> projected = {
      {{&out, {0, 2}, {}, {0, 1}}}};
  Edits apart(none, projected);
  x = at::randn({1, 4, 3, 2});
  ASSERT_TRUE(apart.Apply(out.hook, &x).ok());
  EXPECT_LT(x[0][0].flatten().dot(rows[0].flatten()).abs().item<float>(), 1e-4);
  EXPECT_LT(x[0][2].flatten().dot(rows[1].flatten()).abs().item<float>(), 1e-4);
}

TEST(Intervention, NarrowsAValueOfTheWholePoint) {
  const at::Tensor whole = at::arange(6, at::kFloat).view({3, 2});
  const auto value = [](const Intervention& intervention) {
    return ViewOf(intervention.value).clone();
  };
  Intervention one = Fitted(Change::kSet, HookKind::kZ, whole, {2, 0}, {1});
  EXPECT_TRUE(at::equal(value(one), at::tensor({5.f, 1.f})));
  EXPECT_FALSE(one.per_position);
  const at::Tensor rows = at::stack({whole, whole + 10});
  one = Fitted(Change::kAdd, HookKind::kZ, rows, {1});
  EXPECT_TRUE(one.per_position);
  EXPECT_TRUE(at::equal(value(one), rows.narrow(1, 1, 1)));
  // One row is one value; what does not fit is refused, not cut.
  one = Fitted(Change::kSet, HookKind::kResidPre, at::ones({1, 6}));
  EXPECT_FALSE(one.per_position);
  one = Fitted(Change::kSet, HookKind::kResidPre, at::ones({2, 5}));
  EXPECT_THAT(
      std::string(CheckIntervention(one, nullptr, Config(), "i").message()),
      HasSubstr("i.value: 10 numbers"));
}

TEST(Intervention, IdentityTellsThemApart) {
  const auto identity = [](const Intervention& intervention) {
    storage::Hasher hasher("test");
    AddToIdentity(intervention, &hasher);
    return hasher.Finish();
  };
  const Intervention base = Make(Change::kAdd, HookKind::kZ, {1, 2});
  std::vector<Intervention> others(9, base);
  others[0].change = Change::kSet;
  others[1].hook.layer = 0;
  others[2].heads = {1};
  others[3].neurons = {1};
  others[4].factor = 2;
  others[5].value.bytes[0] ^= 1;
  others[6].keep_error = false;
  others[7].per_position = true;
  others[8].value.shape = {2, 1};
  for (const Intervention& other : others) {
    EXPECT_NE(identity(base), identity(other));
  }
  EXPECT_EQ(identity(base), identity(Intervention(base)));
}

}  // namespace
}  // namespace cupola::analysis
