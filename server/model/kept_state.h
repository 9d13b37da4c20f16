#ifndef CUPOLA_SERVER_MODEL_KEPT_STATE_H_
#define CUPOLA_SERVER_MODEL_KEPT_STATE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "ATen/ATen.h"

namespace cupola::model {

// The resume engine. A change at layer L and position p of a prompt leaves
// every layer before L as it was, and, in a causal model, every position before
// p. So the prompt is run once, with ForwardRequest::keep; what the later
// layers need of it stays here; and each changed copy of it is a row of a pass
// with ForwardRequest::continuation, which computes layers from L and positions
// from p on alone. Many copies of many prompts go through one such pass, and
// all copies of a prompt read its keys and values where they lie. The result
// is that of a full recomputation, within float rounding.
//
//   keep = {.from_layer = L, .residuals = {L}}          pass over the prompts
//   start_layer = L, start_residual = rows of kept->residuals[L] from p on,
//   continuation = {kept, rows, first}, edits = ...     pass over the copies
//
// Plain data: immutable once the pass that filled it has returned; then any
// thread may read it.
struct KeptState {
  // By layer, undefined before the first that was asked for and after the last
  // that the pass came by: [rows, n_kv_heads, positions, d_head] in the model's
  // dtype, keys after qk-norm and rotary.
  std::vector<at::Tensor> keys, values;
  // The residual entering a layer (n_layers: leaving the last): [rows,
  // positions, d_model]. May share memory with captures of the same pass.
  std::map<int, at::Tensor> residuals;

  int64_t bytes() const;
};

// What a pass keeps, of what it comes by: it goes no further for it.
struct Keep {
  int from_layer = 0;          // keys and values of this layer and all after
  std::vector<int> residuals;  // entering these layers, 0 to n_layers
};

// Rows that each continue a row of `kept`: row i stands for kept row
// kept_rows[i] from position first[i] on. Its attention sees the kept keys and
// values of the positions before first[i], and its own from there. Rows of one
// kept row are cheapest next to each other. `first` may be as long as the kept
// row: the copy then only adds to it. A pass that gets to the attention of a
// layer that was not kept ends as INVALID_ARGUMENT.
struct Continuation {
  std::shared_ptr<const KeptState> kept;  // null: the pass starts its rows
  std::vector<int64_t> kept_rows, first;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_KEPT_STATE_H_
