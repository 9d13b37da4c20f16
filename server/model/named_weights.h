#ifndef CUPOLA_SERVER_MODEL_NAMED_WEIGHTS_H_
#define CUPOLA_SERVER_MODEL_NAMED_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/model.h"
#include "server/model/model_config.h"

namespace cupola::model {

// A model's weights under TransformerLens' names (HookedTransformer's
// parameters) and in its shapes:
//
//   embed.W_E [d_vocab, d_model]       pos_embed.W_pos [n_ctx, d_model]
//   ln_final.w, .b [d_model]           unembed.W_U [d_model, d_vocab]
//   unembed.b_U [d_vocab]              and for each layer L, in blocks.L:
//   ln1.w, .b, ln2.w, .b, ln1_post.w, ln2_post.w [d_model]
//   attn.W_Q, W_K, W_V [n_heads, d_model, d_head], b_Q, b_K, b_V
//   attn._W_K, _W_V, _b_K, _b_V: the same with each key/value head once
//   attn.W_O [n_heads, d_head, d_model], b_O; attn.q_norm.w, k_norm.w [d_head]
//   mlp.W_in, W_gate [d_model, d_mlp], b_in, b_gate, W_out, b_out
//
// W_E, W_pos, W_U and b_U may stand alone. A bias the family lacks is zero, as
// in TransformerLens; b_gate is there only where the family has it. Folded
// models have no gains and biases of ln1, ln2 and ln_final. W_E is scaled where
// the family scales it.
struct NamedWeight {
  std::string name;  // canonical
  int layer = -1;    // -1: outside the blocks
  std::string leaf;  // "attn.W_Q"
  std::vector<int64_t> shape;
};

// NOT_FOUND for a name the model lacks in this processing, with those it has at
// that place; INVALID_ARGUMENT for a layer outside the model.
absl::StatusOr<NamedWeight> FindNamedWeight(absl::string_view name,
                                            const ModelConfig& config,
                                            Processing processing);

// The weight as a model of this processing and dtype computes with it, read
// from the model's files (which costs its sublayer's size, and needs no loaded
// model): float32 on the CPU, rounded to `dtype` first. `weight` is
// FindNamedWeight's. INVALID_ARGUMENT and DATA_LOSS as Checkpoint's.
absl::StatusOr<at::Tensor> ReadNamedWeight(const ModelSource& source,
                                           Processing processing,
                                           at::ScalarType dtype,
                                           const NamedWeight& weight);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_NAMED_WEIGHTS_H_
