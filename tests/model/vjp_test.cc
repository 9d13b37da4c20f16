// The pieces of the way back, in float64 against finite differences of the
// forward formulas.

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "server/model/attention_vjp.h"
#include "server/model/mlp.h"
#include "server/model/mlp_vjp.h"
#include "server/model/norm_vjp.h"
#include "server/model/rotary_vjp.h"

namespace cupola::model {
namespace {

at::Tensor Random(at::IntArrayRef shape, int64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape, at::kDouble);
}

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected,
                 double tolerance) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const double scale = expected.abs().max().item<double>();
  EXPECT_GT(scale, 0);
  EXPECT_LE((actual - expected).abs().max().item<double>(), tolerance * scale);
}

// d (g . f(x)) / dx by central differences.
at::Tensor Slope(const std::function<at::Tensor(const at::Tensor&)>& f,
                 const at::Tensor& x, const at::Tensor& g) {
  constexpr double kStep = 1e-6;
  at::Tensor slope = at::zeros_like(x).flatten();
  for (int64_t i = 0; i < slope.numel(); ++i) {
    at::Tensor move = at::zeros_like(x).flatten();
    move[i] = kStep;
    move = move.view(x.sizes());
    slope[i] = ((f(x + move) - f(x - move)) * g).sum() / (2 * kStep);
  }
  return slope.view(x.sizes());
}

at::Tensor Centred(NormKind kind, const at::Tensor& x) {
  return kind == NormKind::kLayerNorm ? x - x.mean(-1, true) : x;
}

TEST(NormVjp, IsTheDerivative) {
  for (NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    const at::Tensor x = Random({3, 7}, 1), g = Random({2, 3, 7}, 2);
    const auto scale = [kind](const at::Tensor& y) {
      return (Centred(kind, y).square().mean(-1, true) + 1e-5).sqrt();
    };
    const at::Tensor held = scale(x), rows = Centred(kind, x) / held;
    const at::Tensor full = NormalizeVjp(kind, rows, held, g, false);
    const at::Tensor frozen = NormalizeVjp(kind, rows, held, g, true);
    for (int64_t r = 0; r < 2; ++r) {
      ExpectClose(
          full[r],
          Slope(
              [&](const at::Tensor& y) { return Centred(kind, y) / scale(y); },
              x, g[r]),
          1e-6);
      ExpectClose(
          frozen[r],
          Slope([&](const at::Tensor& y) { return Centred(kind, y) / held; }, x,
                g[r]),
          1e-6);
    }
  }
}

TEST(MlpVjp, IsTheDerivative) {
  const at::Tensor pre = Random({3, 5}, 3), linear = Random({3, 5}, 4);
  const at::Tensor g = Random({1, 3, 5}, 5);
  for (Activation kind : {Activation::kGelu, Activation::kGeluNew,
                          Activation::kSilu, Activation::kRelu}) {
    const MlpCotangents plain = MlpVjp(kind, pre, {}, g);
    EXPECT_FALSE(plain.linear.defined());
    ExpectClose(plain.pre[0],
                Slope([&](const at::Tensor& x) { return Activate(kind, x); },
                      pre, g[0]),
                1e-6);
    const MlpCotangents gated = MlpVjp(kind, pre, linear, g);
    ExpectClose(
        gated.pre[0],
        Slope([&](const at::Tensor& x) { return Activate(kind, x) * linear; },
              pre, g[0]),
        1e-6);
    ExpectClose(gated.linear[0], Activate(kind, pre) * g[0], 1e-12);
  }
}

TEST(Rotary, TurnsBack) {
  for (bool adjacent : {false, true}) {
    const Rotary rotary = {6, adjacent, {1.0, 0.3, 0.01}};
    // Beyond the positions that are kept ready, too.
    const RotaryTable table(rotary, 4, at::kFloat, at::kCPU);
    const at::Tensor x = Random({2, 9, 3, 8}, 6).to(at::kFloat);
    const at::Tensor back = RotateBack(
        rotary, table,
        table.Rotate(x).index_select(1, at::tensor({7, 2}, at::kLong)),
        at::tensor({7, 2}, at::kLong));
    ExpectClose(back, x.index_select(1, at::tensor({7, 2}, at::kLong)), 1e-6);
  }
}

class AttentionVjpTest : public testing::Test {
 protected:
  AttentionVjpTest() {
    config_.n_heads = 4;
    config_.n_kv_heads = 2;
    config_.d_head = 3;
    config_.attention = {{.window = 4, .scale = 1.7}};
    config_.attention_softcap = 2;
  }

  // All positions' z, [positions, heads d_head].
  at::Tensor Forward(const CleanHeads& heads, const at::Tensor& pattern) const {
    const at::Tensor v = heads.v.repeat_interleave(Group(), 1).transpose(0, 1);
    return at::matmul(pattern, v).transpose(0, 1).flatten(1);
  }
  at::Tensor Pattern(const CleanHeads& heads) const {
    const AttentionLayer& layer = config_.attention[0];
    const at::Tensor q = heads.q.transpose(0, 1);
    const at::Tensor k = heads.k.repeat_interleave(Group(), 1).transpose(0, 1);
    at::Tensor scores = at::matmul(q, k.transpose(1, 2)) / layer.scale;
    if (config_.attention_softcap > 0) {
      scores = (scores / config_.attention_softcap).tanh() *
               config_.attention_softcap;
    }
    const at::Tensor key = at::arange(q.size(1)), query = key.unsqueeze(-1);
    at::Tensor hidden = key > query;
    if (layer.window > 0) hidden = hidden | (key <= query - layer.window);
    return at::softmax(
        scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()),
        -1);
  }
  CleanHeads Heads(int64_t positions) const {
    return {Random({positions, config_.n_heads, config_.d_head}, 7),
            Random({positions, config_.n_kv_heads, config_.d_head}, 8),
            Random({positions, config_.n_kv_heads, config_.d_head}, 9)};
  }
  int64_t Group() const { return config_.n_heads / config_.n_kv_heads; }

  ModelConfig config_;
};

TEST_F(AttentionVjpTest, IsTheDerivative) {
  const CleanHeads heads = Heads(7);
  const std::vector<int64_t> queries = {3, 6}, reached = {2, 3, 4, 6};
  const at::Tensor at_queries = at::tensor(queries, at::kLong);
  const at::Tensor g = Random({2, 2, 12}, 10);
  const HeadCotangents found =
      AttentionVjp(config_, 0, heads, g, {queries, reached, false}, false);
  const HeadCotangents frozen =
      AttentionVjp(config_, 0, heads, g, {queries, reached, false}, true);
  EXPECT_FALSE(frozen.q.defined() || frozen.k.defined());
  ExpectClose(frozen.v, found.v, 1e-12);
  for (int64_t r = 0; r < 2; ++r) {
    const auto slope = [&](at::Tensor CleanHeads::*which,
                           const std::vector<int64_t>& positions) {
      return Slope(
                 [&](const at::Tensor& x) {
                   CleanHeads moved = heads;
                   moved.*which = x;
                   return Forward(moved, Pattern(moved))
                       .index_select(0, at_queries);
                 },
                 heads.*which, g[r])
          .index_select(0, at::tensor(positions, at::kLong))
          .flatten(1);
    };
    ExpectClose(found.q[r], slope(&CleanHeads::q, queries), 1e-6);
    ExpectClose(found.k[r], slope(&CleanHeads::k, reached), 1e-6);
    ExpectClose(found.v[r], slope(&CleanHeads::v, reached), 1e-6);
  }
}

TEST_F(AttentionVjpTest, OwnPositionsAreEachAlone) {
  const CleanHeads heads = Heads(7);
  const std::vector<int64_t> queries = {5, 0, 5, 3};
  const at::Tensor g = Random({3, 4, 12}, 11);
  const HeadCotangents own =
      AttentionVjp(config_, 0, heads, g, {queries, {}, true}, false);
  for (size_t i = 0; i < queries.size(); ++i) {
    const HeadCotangents one =
        AttentionVjp(config_, 0, heads, g.narrow(1, i, 1),
                     {{queries[i]}, {queries[i]}, false}, false);
    // A token that sees itself alone has one pattern.
    if (queries[i] > 0) {
      ExpectClose(own.q.narrow(1, i, 1), one.q, 1e-12);
      ExpectClose(own.k.narrow(1, i, 1), one.k, 1e-12);
    }
    ExpectClose(own.v.narrow(1, i, 1), one.v, 1e-12);
  }
}

// So many rows that queries are taken a few at a time.
TEST_F(AttentionVjpTest, PartsGiveTheSameNumbers) {
  constexpr int64_t kPositions = 257, kRows = 64;
  ASSERT_GT(kRows * config_.n_heads * kPositions * kPositions,
            2 * kAttentionVjpValues);
  config_.attention[0].window = 0;
  const CleanHeads heads = Heads(kPositions);
  std::vector<int64_t> all(kPositions);
  for (int64_t i = 0; i < kPositions; ++i) all[i] = i;
  const at::Tensor g = Random({kRows, kPositions, 12}, 12);
  for (bool own : {false, true}) {
    const AttentionPlaces places = {all, all, own};
    const HeadCotangents together =
        AttentionVjp(config_, 0, heads, g, places, false);
    const HeadCotangents alone =
        AttentionVjp(config_, 0, heads, g.narrow(0, 7, 1), places, false);
    ExpectClose(together.q.narrow(0, 7, 1), alone.q, 1e-12);
    ExpectClose(together.k.narrow(0, 7, 1), alone.k, 1e-12);
    ExpectClose(together.v.narrow(0, 7, 1), alone.v, 1e-12);
  }
}

}  // namespace
}  // namespace cupola::model
