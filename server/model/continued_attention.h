#ifndef CUPOLA_SERVER_MODEL_CONTINUED_ATTENTION_H_
#define CUPOLA_SERVER_MODEL_CONTINUED_ATTENTION_H_

#include "ATen/ATen.h"
#include "server/model/kept_state.h"
#include "server/model/model_config.h"

namespace cupola::model {

// The attention of rows that continue kept rows (kept_state.h), in one layer:
//   q [rows, positions, n_heads, d_head], k and v [rows, positions, n_kv_heads,
//   d_head], after qk-norm and rotary -> z [rows, positions, n_heads, d_head].
// Scores are scaled, softcapped and windowed as the layer's, by absolute
// position. Rows of one kept row are queries against one matrix of kept keys,
// which is never copied. REQUIRES: the layer was kept.
at::Tensor ContinuedAttention(const ModelConfig& config, int layer,
                              const Continuation& continuation,
                              const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v);

// The absolute positions of the rows' tokens, int64 [rows, positions] on
// `device`. Those beyond the context, which only padding reaches, are the
// context's last.
at::Tensor AbsolutePositions(const Continuation& continuation,
                             int64_t positions, int64_t n_ctx,
                             at::Device device);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_CONTINUED_ATTENTION_H_
