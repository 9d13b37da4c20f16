#include "server/model/block_vjp.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/model/mlp_vjp.h"
#include "server/model/norm_vjp.h"
#include "server/model/rotary_vjp.h"

namespace cupola::model {
namespace {

using enum HookKind;

constexpr HookKind kEnds[] = {kResidPre,
                              kLn1Normalized,
                              kLn1Out,
                              kQ,
                              kK,
                              kV,
                              kZ,
                              kAttnOut,
                              kResidMid,
                              kMlpIn,
                              kLn2Normalized,
                              kLn2Out,
                              kMlpPre,
                              kMlpPreLinear,
                              kMlpPost,
                              kMlpOut,
                              kResidPost};

at::Tensor Wide(const at::Tensor& x) {
  return x.defined() ? x.to(at::kFloat) : x;
}

// Undefined stands for zero.
at::Tensor Sum(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

at::Tensor Times(const at::Tensor& g, const at::Tensor& matrix) {
  return g.defined() ? at::matmul(g, matrix) : g;
}

at::Tensor IndexOf(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

}  // namespace

bool SpanAccepts(HookKind kind) {
  return std::find(std::begin(kEnds), std::end(kEnds), kind) != std::end(kEnds);
}

std::string SpanKinds(const ModelConfig& config) {
  std::vector<std::string> names;
  for (const HookPoint& point : AllHookPoints(config)) {
    if (point.layer == 0 && SpanAccepts(point.kind)) {
      names.push_back(HookName(point));
    }
  }
  return absl::StrCat(absl::StrJoin(names, ", "), " and the same of layers to ",
                      config.n_layers - 1);
}

std::set<HookPoint> BlockCaptures(const BackwardSpan& span, int layer,
                                  const ModelConfig& config) {
  std::set<HookPoint> points;
  // `kinds` are read on the way from `later` to `earlier`.
  const auto add = [&](HookKind later, HookKind earlier,
                       std::initializer_list<HookKind> kinds) {
    if (ForwardOrder({later, layer}) > ForwardOrder(span.from) ||
        ForwardOrder({earlier, layer}) < ForwardOrder(span.to)) {
      return;
    }
    for (HookKind kind : kinds) points.insert({kind, layer});
  };
  add(kLn1Normalized, kResidPre, {kLn1Scale, kLn1Normalized});
  const bool rotary = config.positions == PositionKind::kRotary;
  add(kZ, kV, {rotary ? kRotQ : kQ, rotary ? kRotK : kK, kV});
  if (config.qk_norm && !span.frozen) {
    add(kZ, kV, {kQNormScale, kQNormNormalized});
    add(kZ, kV, {kKNormScale, kKNormNormalized});
  }
  if (config.post_norms) {
    add(kAttnOut, kZ, {kLn1PostScale, kLn1PostNormalized});
    add(kMlpOut, kMlpPost, {kLn2PostScale, kLn2PostNormalized});
  }
  add(kLn2Normalized, kMlpIn, {kLn2Scale, kLn2Normalized});
  add(kMlpPost, kMlpPreLinear, {kMlpPre});
  if (config.gated_mlp) add(kMlpPost, kMlpPreLinear, {kMlpPreLinear});
  return points;
}

BlockMatrices BlockMatrices::Of(const Block& block) {
  const auto transposed = [](const Linear& linear) {
    return Wide(linear.Weight()).t();
  };
  return {transposed(block.qkv), transposed(block.attention_out),
          transposed(block.mlp_in), transposed(block.mlp_out)};
}

int64_t BlockMatrices::Bytes(const ModelConfig& config) {
  const int64_t heads = 2 * (config.n_heads + config.n_kv_heads);
  const int64_t mlp = config.d_mlp * (config.gated_mlp ? 3 : 2);
  return static_cast<int64_t>(sizeof(float)) * config.d_model *
         (heads * config.d_head + mlp);
}

Cotangents Cotangents::At(const std::vector<int64_t>& others) const {
  if (!values.defined() || others == positions) return {values, others};
  std::vector<int64_t> from, to;
  for (size_t i = 0; i < others.size(); ++i) {
    const auto found =
        std::lower_bound(positions.begin(), positions.end(), others[i]);
    if (found == positions.end() || *found != others[i]) continue;
    from.push_back(found - positions.begin());
    to.push_back(static_cast<int64_t>(i));
  }
  const int64_t count = static_cast<int64_t>(others.size());
  at::Tensor moved =
      at::zeros({values.size(0), count, values.size(2)}, values.options());
  if (!from.empty()) {
    moved.index_copy_(1, IndexOf(to, values.device()),
                      values.index_select(1, IndexOf(from, values.device())));
  }
  return {std::move(moved), others};
}

// One way through. Cotangents are [rows, positions_, width] and undefined
// where they are zero, as everything behind span.from is.
class BlockVjp::Walk {
 public:
  Walk(const BlockVjp& block, int64_t row, const Cotangents& start,
       const std::vector<int64_t>& reached, bool own)
      : b_(block),
        weights_(block.weights_.blocks[block.layer_]),
        row_(row),
        start_(start),
        places_{start.positions, own ? start.positions : reached, own},
        positions_(start.positions) {}

  Cotangents Run() {
    at::Tensor out;
    if (b_.layer_ != b_.span_.from.layer) out = start_.values;
    Whole(out);
    return {result_, positions_};
  }

 private:
  // From the residual leaving the block to the one entering it, or to span.to.
  void Whole(at::Tensor out) {
    if (Meet(kResidPost, &out)) return;
    const bool parallel = b_.config_.parallel_blocks;
    at::Tensor branch;
    const bool skip = parallel && b_.layer_ == b_.span_.to.layer &&
                      b_.span_.to.kind > kResidPre &&
                      b_.span_.to.kind <= kAttnOut;
    if (!skip && Mlp(out, &branch)) return;
    // What stands before both branches, or behind the attention.
    at::Tensor mid = Sum(out, branch);
    if (!parallel && Meet(kResidMid, &mid)) return;
    at::Tensor attention;
    const std::vector<int64_t> before = positions_;
    if (Attention(parallel ? out : mid, &attention)) return;
    result_ = Sum(Cotangents{mid, before}.At(positions_).values, attention);
    Meet(kResidPre, &result_);
  }

  // Adds what begins at this point; whether the way ends here.
  bool Meet(HookKind kind, at::Tensor* g) {
    const HookPoint point = {kind, b_.layer_};
    if (point == b_.span_.from) *g = Sum(*g, start_.values);
    if (point != b_.span_.to) return false;
    result_ = *g;
    return true;
  }

  bool Mlp(at::Tensor g, at::Tensor* in) {
    const ModelConfig& config = b_.config_;
    if (Meet(kMlpOut, &g)) return true;
    if (config.post_norms) {
      BackThroughNorm(weights_.ln2_post, kLn2PostScale, kLn2PostNormalized, &g);
    }
    g = Times(g, b_.matrices_.mlp_out);
    if (Meet(kMlpPost, &g)) return true;
    MlpCotangents inner;
    if (g.defined()) {
      inner = MlpVjp(config.activation, Here(kMlpPre),
                     config.gated_mlp ? Here(kMlpPreLinear) : at::Tensor(), g);
    }
    if (config.gated_mlp && Meet(kMlpPreLinear, &inner.linear)) return true;
    if (Meet(kMlpPre, &inner.pre)) return true;
    // mlp_in's outputs are gate | linear.
    const at::Tensor& matrix = b_.matrices_.mlp_in;
    g = Times(inner.pre, matrix.narrow(0, 0, config.d_mlp));
    if (inner.linear.defined()) {
      g = Sum(
          g, Times(inner.linear, matrix.narrow(0, config.d_mlp, config.d_mlp)));
    }
    if (Meet(kLn2Out, &g)) return true;
    Gain(weights_.ln2, &g);
    if (Meet(kLn2Normalized, &g)) return true;
    Normalise(weights_.ln2, kLn2Scale, kLn2Normalized, &g);
    if (Meet(kMlpIn, &g)) return true;
    *in = g;
    return false;
  }

  // Leaves positions_ at those that the cotangents have reached.
  bool Attention(at::Tensor g, at::Tensor* in) {
    const ModelConfig& config = b_.config_;
    if (Meet(kAttnOut, &g)) return true;
    if (config.post_norms) {
      BackThroughNorm(weights_.ln1_post, kLn1PostScale, kLn1PostNormalized, &g);
    }
    g = Times(g, b_.matrices_.attention_out);
    if (Meet(kZ, &g)) return true;
    HeadCotangents heads;
    std::vector<int64_t> after = positions_;
    if (g.defined()) {
      heads =
          AttentionVjp(config, b_.layer_, Heads(), g, places_, b_.span_.frozen);
      after = places_.reached;
    }
    BackToProjection(weights_.q_norm, kQNormScale, kQNormNormalized, &heads.q);
    if (Meet(kQ, &heads.q)) return true;
    const int64_t query = config.n_heads * config.d_head;
    const int64_t key = config.n_kv_heads * config.d_head;
    const at::Tensor& matrix = b_.matrices_.qkv;  // outputs q | k | v
    g = Cotangents{Times(heads.q, matrix.narrow(0, 0, query)), positions_}
            .At(after)
            .values;
    positions_ = after;
    if (Meet(kV, &heads.v)) return true;
    BackToProjection(weights_.k_norm, kKNormScale, kKNormNormalized, &heads.k);
    if (Meet(kK, &heads.k)) return true;
    g = Sum(g, Times(heads.k, matrix.narrow(0, query, key)));
    g = Sum(g, Times(heads.v, matrix.narrow(0, query + key, key)));
    if (Meet(kLn1Out, &g)) return true;
    Gain(weights_.ln1, &g);
    if (Meet(kLn1Normalized, &g)) return true;
    Normalise(weights_.ln1, kLn1Scale, kLn1Normalized, &g);
    *in = g;
    return false;
  }

  // From queries or keys as the scores see them to those before rotary and
  // qk-norm. g: [rows, positions, heads d_head].
  void BackToProjection(const Norm& norm, HookKind scale, HookKind normalized,
                        at::Tensor* g) {
    if (!g->defined()) return;
    const ModelConfig& config = b_.config_;
    at::Tensor heads = g->unflatten(2, {-1, config.d_head});
    if (config.positions == PositionKind::kRotary) {
      const bool local = config.attention[b_.layer_].local_rotary;
      heads = RotateBack(local ? config.local_rotary : config.rotary,
                         local ? b_.weights_.local_rotary : b_.weights_.rotary,
                         heads, IndexOf(positions_, heads.device()));
    }
    if (config.qk_norm) BackThroughNorm(norm, scale, normalized, &heads);
    *g = heads.flatten(2);
  }

  void Gain(const Norm& norm, at::Tensor* g) const {
    if (g->defined() && norm.weight.defined()) *g = *g * Wide(norm.weight);
  }
  void Normalise(const Norm& norm, HookKind scale, HookKind normalized,
                 at::Tensor* g) const {
    if (!g->defined()) return;
    *g = NormalizeVjp(norm.kind, Here(normalized), Here(scale), *g,
                      b_.span_.frozen);
  }
  void BackThroughNorm(const Norm& norm, HookKind scale, HookKind normalized,
                       at::Tensor* g) const {
    Gain(norm, g);
    Normalise(norm, scale, normalized, g);
  }

  // The clean value at every position of the row, and where cotangents stand.
  at::Tensor Clean(HookKind kind) const {
    return Wide(b_.inside_.at({kind, b_.layer_}).select(0, row_));
  }
  at::Tensor Here(HookKind kind) const {
    const at::Tensor value = b_.inside_.at({kind, b_.layer_}).select(0, row_);
    return Wide(value.index_select(0, IndexOf(positions_, value.device())));
  }
  CleanHeads Heads() const {
    const bool rotary = b_.config_.positions == PositionKind::kRotary;
    return {Clean(rotary ? kRotQ : kQ), Clean(rotary ? kRotK : kK), Clean(kV)};
  }

  const BlockVjp& b_;
  const Block& weights_;
  const int64_t row_;
  const Cotangents& start_;
  const AttentionPlaces places_;
  std::vector<int64_t> positions_;
  at::Tensor result_;
};

Cotangents BlockVjp::Run(int64_t row, const Cotangents& cotangents,
                         const std::vector<int64_t>& reached, bool own) const {
  return Walk(*this, row, cotangents, reached, own).Run();
}

}  // namespace cupola::model
