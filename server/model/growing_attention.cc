#include "server/model/growing_attention.h"

#include <limits>

#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

// Where a row's query does not see a key: bool [rows, 1, 1, positions];
// undefined where every row sees every one.
at::Tensor Hidden(const GrowingState& state, int64_t positions, int64_t window,
                  at::Device device) {
  bool all = window == 0 || window >= positions;
  for (int64_t length : state.lengths()) all &= length + 1 == positions;
  if (all) return {};
  const at::Tensor query =
      at::tensor(state.lengths(), at::kLong).to(device).view({-1, 1, 1, 1});
  const at::Tensor key = at::arange(
      positions, at::TensorOptions().dtype(at::kLong).device(device));
  at::Tensor hidden = key > query;
  if (window > 0) hidden = hidden.logical_or(key <= query - window);
  return hidden;
}

}  // namespace

absl::Status GrowingAttention(const ModelConfig& config, GrowingState* state,
                              Pass* pass, const at::Tensor& q,
                              const at::Tensor& k, const at::Tensor& v,
                              at::Tensor* z) {
  const int layer = pass->layer();
  const AttentionLayer& settings = config.attention[layer];
  state->Write(layer, k, v);
  const int64_t rows = state->rows(), positions = state->longest() + 1;
  const int64_t kv = config.n_kv_heads, r = config.n_heads / kv;
  const int64_t width = config.d_head;
  // Heads that share a key/value head are rows of one product.
  at::Tensor scores =
      at::bmm(q.reshape({rows * kv, r, width}),
              state->Keys(layer, positions).flatten(0, 1).transpose(1, 2))
          .view({rows, config.n_heads, 1, positions});
  scores.div_(settings.scale);
  if (config.attention_softcap > 0) {
    scores.div_(config.attention_softcap)
        .tanh_()
        .mul_(config.attention_softcap);
  }
  const at::Tensor hidden =
      Hidden(*state, positions, settings.window, q.device());
  if (hidden.defined()) {
    scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  }
  RETURN_IF_ERROR(pass->Visit(HookKind::kAttnScores, &scores));
  if (!pass->Needs(HookKind::kPattern)) return absl::OkStatus();
  // Behind a row's end there is nothing, whatever an edit says.
  const at::Tensor nothing =
      pass->WatchesAny(HookKind::kAttnScores, HookKind::kPattern)
          ? Hidden(*state, positions, 0, q.device())
          : at::Tensor();
  if (nothing.defined()) {
    scores =
        scores.masked_fill(nothing, -std::numeric_limits<double>::infinity());
  }
  at::Tensor pattern = at::softmax(scores, -1);
  if (pass->Edits(HookKind::kAttnScores)) {
    // A row that an edit has masked altogether attends to nothing.
    pattern = at::where(pattern.isnan(), at::zeros_like(pattern), pattern);
  }
  RETURN_IF_ERROR(pass->Visit(HookKind::kPattern, &pattern));
  if (!pass->Needs(HookKind::kZ)) return absl::OkStatus();
  if (nothing.defined()) pattern = pattern.masked_fill(nothing, 0);
  *z = at::bmm(pattern.view({rows * kv, r, positions}),
               state->Values(layer, positions).flatten(0, 1))
           .view({rows, 1, config.n_heads, width});
  return absl::OkStatus();
}

}  // namespace cupola::model
