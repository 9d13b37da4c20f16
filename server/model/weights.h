#ifndef CUPOLA_SERVER_MODEL_WEIGHTS_H_
#define CUPOLA_SERVER_MODEL_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/model/checkpoint.h"
#include "server/model/linear.h"
#include "server/model/model_config.h"
#include "server/model/norm.h"
#include "server/model/rotary.h"

namespace cupola::model {

// One block, ready to compute. Norms that the model lacks or that were folded
// away have no gain; q_norm, k_norm and the post norms exist where the config
// says so.
struct Block {
  Norm ln1, ln1_post, ln2, ln2_post, q_norm, k_norm;
  Linear qkv;            // d_model -> q | k | v, heads in order
  Linear attention_out;  // n_heads * d_head -> d_model
  Linear mlp_in;         // d_model -> d_mlp, or gate | in, 2 * d_mlp
  Linear mlp_out;        // d_mlp -> d_model

  int64_t resident_bytes() const;
};

// From the final norm's output to logits (before any softcap). A tied matrix is
// the embedding's own table; folding is then done to the rows instead:
//   logits = (x * gain + shift) W_E^T, minus their mean over the vocabulary,
// which equals the folded, centred matrix's logits. Only a LayerNorm model's
// row that an edit has given a mean needs that mean taken out first
// (`centers_rows`).
struct Unembedding {
  Linear linear;
  at::Tensor gain, shift;  // float32 [d_model], or undefined
  bool centers_rows = false;
  bool centers_logits = false;

  // x: [..., d_model] -> [..., d_vocab]. `edited`: x is not a norm's output.
  at::Tensor operator()(const at::Tensor& x, bool edited) const;
  int64_t resident_bytes() const;
};

// A model's weights on a device, in one processing and dtype, each held once.
struct Weights {
  at::Tensor embedding;        // [d_vocab, d_model], neither scaled nor centred
  double embedding_scale = 1;  // Gemma: sqrt(d_model), rounded to the dtype
  bool center_embedding = false;  // folded LayerNorm models
  at::Tensor positions;           // [n_ctx, d_model], or undefined
  std::vector<Block> blocks;
  Norm final_norm;
  Unembedding unembedding;
  RotaryTable rotary, local_rotary;

  // Rows of the embedding as hook_embed has them: tokens [...] int64 on the
  // device -> [..., d_model].
  at::Tensor Embed(const at::Tensor& tokens) const;
  int64_t resident_bytes() const;
};

// Reads layer by layer, so that beside the result only one sublayer's float32
// tensors are ever held. Exceptions of LibTorch pass through.
absl::StatusOr<std::unique_ptr<const Weights>> LoadWeights(
    const ModelConfig& config, const Checkpoint& checkpoint,
    Processing processing, at::ScalarType dtype, at::Device device);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_WEIGHTS_H_
