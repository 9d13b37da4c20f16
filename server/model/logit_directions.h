#ifndef CUPOLA_SERVER_MODEL_LOGIT_DIRECTIONS_H_
#define CUPOLA_SERVER_MODEL_LOGIT_DIRECTIONS_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "server/model/model.h"

namespace cupola::model {

// The last stretch of a model, from the residual stream to the logits, as a
// linear map once the final norm's scale s (ln_final.hook_scale) is given: what
// a part x of the residual adds to token t's logit, before any softcap, is
//   x . rows[t] / s,  and over all parts of a residual these sum to
//   logit[t] - bias[t].
// A LayerNorm's centring is inside rows. Of a folded model rows[t] is
// W_U[:, t] (TransformerLens' tokens_to_residual_directions) up to that
// centring. Of a raw one rows hold the norm's gain, and bias what its bias
// adds, only with `gain`: TransformerLens' logit_attrs leaves both out, so that
// there its rows do not sum to a logit.
struct LogitDirections {
  at::Tensor rows;  // float32 [tokens, d_model], on the model's device
  at::Tensor bias;  // float32 [tokens]
};

// REQUIRES: tokens inside the vocabulary. Exceptions of LibTorch pass through.
LogitDirections LogitDirectionsOf(const Model& model,
                                  const std::vector<int64_t>& tokens,
                                  bool gain);

// x . rows[t] for every token of the vocabulary: x [n, d_model] float32 on the
// model's device -> float32 [n, d_vocab]. Exceptions of LibTorch pass through.
at::Tensor ProjectToLogits(const Model& model, const at::Tensor& x, bool gain);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_LOGIT_DIRECTIONS_H_
