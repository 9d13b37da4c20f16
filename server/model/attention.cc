#include "server/model/attention.h"

#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/model/continued_attention.h"
#include "server/model/growing_attention.h"
#include "server/model/status_macros.h"

namespace cupola::model {

const AttentionLayer& Attention::layer() const {
  return config_.attention[pass_.layer()];
}

const Block& Attention::block() const { return weights_.blocks[pass_.layer()]; }

const RotaryTable& Attention::rotary() const {
  return layer().local_rotary ? weights_.local_rotary : weights_.rotary;
}

absl::Status Attention::Run(const at::Tensor& x, at::Tensor* out) {
  Heads heads = Project(x);
  if (config_.qk_norm || pass_.WatchesAny(HookKind::kQ, HookKind::kRotK)) {
    RETURN_IF_ERROR(PrepareWatched(&heads));
  } else if (pass_.Needs(HookKind::kAttnScores)) {
    Prepare(&heads);
  }
  if (!pass_.Needs(HookKind::kAttnScores)) return absl::OkStatus();
  pass_.KeepHeads(heads.k, heads.v);
  at::Tensor z;
  if (pass_.growing() != nullptr) {
    RETURN_IF_ERROR(GrowingAttention(config_, pass_.growing(), &pass_, heads.q,
                                     heads.k, heads.v, &z));
    if (!pass_.Needs(HookKind::kZ)) return absl::OkStatus();
  } else if (pass_.continuation() != nullptr) {
    if (!pass_.continuation()->kept->keys[pass_.layer()].defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer ", pass_.layer(), " was not kept"));
    }
    z = ContinuedAttention(config_, pass_.layer(), *pass_.continuation(),
                           heads.q, heads.k, heads.v);
  } else if (config_.attention_softcap > 0 ||
             pass_.WatchesAny(HookKind::kAttnScores, HookKind::kPattern)) {
    RETURN_IF_ERROR(Scores(heads, &z));
    if (!pass_.Needs(HookKind::kZ)) return absl::OkStatus();
  } else {
    z = Fused(heads);
  }
  RETURN_IF_ERROR(pass_.Visit(HookKind::kZ, &z));
  if (!pass_.Needs(HookKind::kResult)) return absl::OkStatus();
  if (pass_.Watches(HookKind::kResult)) return Result(z, out);
  *out = block().attention_out(z.flatten(-2));
  return absl::OkStatus();
}

Attention::Heads Attention::Project(const at::Tensor& x) const {
  const int64_t query = config_.n_heads * config_.d_head;
  const int64_t key = config_.n_kv_heads * config_.d_head;
  const at::Tensor qkv = block().qkv(x);
  const auto part = [&](int64_t start, int64_t width, int64_t heads) {
    return qkv.narrow(-1, start, width).unflatten(-1, {heads, config_.d_head});
  };
  return {part(0, query, config_.n_heads), part(query, key, config_.n_kv_heads),
          part(query + key, key, config_.n_kv_heads)};
}

// Queries and keys lie side by side and turn alike, so that one rotation serves
// both.
void Attention::Prepare(Heads* heads) const {
  if (config_.positions != PositionKind::kRotary) return;
  const int64_t n = config_.n_heads, k = config_.n_kv_heads;
  std::vector<int64_t> shape = heads->q.sizes().vec();
  shape[2] = n + k;
  const at::Tensor both = heads->q.as_strided(shape, heads->q.strides());
  const at::Tensor turned = Rotate(both);
  heads->q = turned.narrow(2, 0, n);
  heads->k = turned.narrow(2, n, k);
}

absl::Status Attention::PrepareWatched(Heads* heads) {
  RETURN_IF_ERROR(pass_.Visit(HookKind::kQ, &heads->q));
  RETURN_IF_ERROR(pass_.Visit(HookKind::kK, &heads->k));
  RETURN_IF_ERROR(pass_.Visit(HookKind::kV, &heads->v));
  if (!pass_.Needs(HookKind::kQNormScale)) return absl::OkStatus();
  if (config_.qk_norm) {
    RETURN_IF_ERROR(RunNorm(block().q_norm, HookKind::kQNormScale,
                            HookKind::kQNormNormalized, &pass_, &heads->q));
    RETURN_IF_ERROR(RunNorm(block().k_norm, HookKind::kKNormScale,
                            HookKind::kKNormNormalized, &pass_, &heads->k));
  }
  if (!pass_.Needs(HookKind::kRotQ) ||
      config_.positions != PositionKind::kRotary) {
    return absl::OkStatus();
  }
  heads->q = Rotate(heads->q);
  RETURN_IF_ERROR(pass_.Visit(HookKind::kRotQ, &heads->q));
  heads->k = Rotate(heads->k);
  return pass_.Visit(HookKind::kRotK, &heads->k);
}

at::Tensor Attention::Rotate(const at::Tensor& x) const {
  return pass_.positions().defined() ? rotary().Rotate(x, pass_.positions())
                                     : rotary().Rotate(x);
}

const at::Tensor& Attention::Visible(int64_t positions, at::Device device) {
  at::Tensor& visible = visible_[layer().window];
  if (!visible.defined()) {
    const auto options = at::TensorOptions().dtype(at::kLong).device(device);
    const at::Tensor key = at::arange(positions, options);
    const at::Tensor query = key.unsqueeze(-1);
    visible = key <= query;
    if (layer().window > 0) {
      visible = visible.logical_and(key > query - layer().window);
    }
  }
  return visible;
}

at::Tensor Attention::Fused(const Heads& heads) {
  const int64_t positions = heads.q.size(1);
  const bool causal = layer().window == 0 || layer().window >= positions;
  std::optional<at::Tensor> mask;
  if (!causal) mask = Visible(positions, heads.q.device());
  return at::scaled_dot_product_attention(
             heads.q.transpose(1, 2), heads.k.transpose(1, 2),
             heads.v.transpose(1, 2), mask, /*dropout_p=*/0.0, causal,
             1 / layer().scale,
             /*enable_gqa=*/config_.n_kv_heads != config_.n_heads)
      .transpose(1, 2);
}

absl::Status Attention::Scores(const Heads& heads, at::Tensor* z) {
  const int64_t group = config_.n_heads / config_.n_kv_heads;
  // [batch, heads, positions, d_head], a key/value head once per query head.
  const auto by_head = [&](const at::Tensor& t, int64_t repeats) {
    return (repeats == 1 ? t : t.repeat_interleave(repeats, 2)).transpose(1, 2);
  };
  at::Tensor scores = at::matmul(by_head(heads.q, 1),
                                 by_head(heads.k, group).transpose(-2, -1));
  scores.div_(layer().scale);
  if (config_.attention_softcap > 0) {
    scores.div_(config_.attention_softcap)
        .tanh_()
        .mul_(config_.attention_softcap);
  }
  scores.masked_fill_(Visible(heads.q.size(1), scores.device()).logical_not(),
                      -std::numeric_limits<double>::infinity());
  RETURN_IF_ERROR(pass_.Visit(HookKind::kAttnScores, &scores));
  if (!pass_.Needs(HookKind::kPattern)) return absl::OkStatus();
  at::Tensor pattern = at::softmax(scores, -1);
  if (pass_.Edits(HookKind::kAttnScores)) {
    // A row that an edit has masked altogether attends to nothing.
    pattern = at::where(pattern.isnan(), at::zeros_like(pattern), pattern);
  }
  RETURN_IF_ERROR(pass_.Visit(HookKind::kPattern, &pattern));
  if (!pass_.Needs(HookKind::kZ)) return absl::OkStatus();
  *z = at::matmul(pattern, by_head(heads.v, group)).transpose(1, 2);
  return absl::OkStatus();
}

// The heads' shares of the output one by one, then their sum.
absl::Status Attention::Result(const at::Tensor& z, at::Tensor* out) {
  const Linear& linear = block().attention_out;
  const at::Tensor by_head =
      linear.Weight().view({config_.n_heads, config_.d_head, config_.d_model});
  // [batch, positions, heads, 1, d_head] x [heads, d_head, d_model]
  at::Tensor result = at::matmul(z.unsqueeze(-2), by_head).squeeze(-2);
  RETURN_IF_ERROR(pass_.Visit(HookKind::kResult, &result));
  *out = result.sum(2);
  if (linear.bias().defined()) out->add_(linear.bias());
  return absl::OkStatus();
}

}  // namespace cupola::model
