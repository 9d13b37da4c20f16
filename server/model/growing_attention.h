#ifndef CUPOLA_SERVER_MODEL_GROWING_ATTENTION_H_
#define CUPOLA_SERVER_MODEL_GROWING_ATTENTION_H_

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/growing_state.h"
#include "server/model/model_config.h"
#include "server/model/pass.h"

namespace cupola::model {

// The attention of rows that grow by one token (growing_state.h), in the pass's
// current layer:
//   q [rows, 1, n_heads, d_head], k and v [rows, 1, n_kv_heads, d_head], after
//   qk-norm and rotary -> z [rows, 1, n_heads, d_head].
// Writes k and v into `state` and attends to all that the row has. Scores and
// patterns go by the pass as [rows, n_heads, 1, positions of the longest row];
// what lies behind a row's end is masked, and an edit does not change that.
// `z` stays undefined where the pass ends before it.
absl::Status GrowingAttention(const ModelConfig& config, GrowingState* state,
                              Pass* pass, const at::Tensor& q,
                              const at::Tensor& k, const at::Tensor& v,
                              at::Tensor* z);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_GROWING_ATTENTION_H_
