#include "server/model/weights.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>

#include "c10/core/GradMode.h"
#include "server/model/processing.h"
#include "server/model/resident_bound.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

// What the parts of a load have in common.
struct Loader {
  const ModelConfig& config;
  const Checkpoint& checkpoint;
  bool folded;
  at::ScalarType dtype;
  at::Device device;

  // Folding is done in float32; without it nothing is wider than it must be.
  at::ScalarType ReadType() const { return folded ? at::kFloat : dtype; }

  at::Tensor Place(const at::Tensor& tensor) const {
    return tensor.to(at::TensorOptions().dtype(dtype).device(device))
        .contiguous();
  }

  Norm MakeNorm(const NormWeights& weights) const {
    Norm norm;
    norm.kind = config.norm;
    norm.eps = config.norm_eps;
    if (weights.weight.defined()) norm.weight = Place(weights.weight);
    if (weights.bias.defined()) norm.bias = Place(weights.bias);
    return norm;
  }

  // Several maps of one input as one, outputs side by side. The parts are
  // released on the way.
  Linear Join(std::initializer_list<Affine*> parts) const {
    bool has_bias = false;
    for (const Affine* part : parts) has_bias |= part->bias.defined();
    std::vector<at::Tensor> weights, biases;  // [out, in], [out]
    for (Affine* part : parts) {
      weights.push_back(part->weight.t());
      if (has_bias && !part->bias.defined()) {
        part->bias = at::zeros({part->weight.size(1)}, part->weight.options());
      }
      if (has_bias) biases.push_back(part->bias);
      *part = {};
    }
    const at::Tensor weight =
        weights.size() == 1 ? weights[0] : at::cat(weights, 0);
    weights.clear();
    const at::Tensor bias = has_bias ? at::cat(biases, 0) : at::Tensor();
    return Linear::Create(weight.t(), bias, dtype, device);
  }

  absl::Status LoadAttention(int layer, Block* block) const {
    ASSIGN_OR_RETURN(AttentionTensors tensors,
                     checkpoint.Attention(layer, ReadType()));
    if (folded) FoldAttention(config, &tensors);
    block->ln1 = MakeNorm(tensors.ln1);
    block->ln1_post = MakeNorm(tensors.ln1_post);
    block->q_norm = MakeNorm(tensors.q_norm);
    block->k_norm = MakeNorm(tensors.k_norm);
    block->qkv = Join({&tensors.q, &tensors.k, &tensors.v});
    block->attention_out = Join({&tensors.out});
    return absl::OkStatus();
  }

  absl::Status LoadMlp(int layer, Block* block) const {
    ASSIGN_OR_RETURN(MlpTensors tensors, checkpoint.Mlp(layer, ReadType()));
    if (folded) FoldMlp(config, &tensors);
    block->ln2 = MakeNorm(tensors.ln2);
    block->ln2_post = MakeNorm(tensors.ln2_post);
    block->mlp_in = config.gated_mlp ? Join({&tensors.gate, &tensors.in})
                                     : Join({&tensors.in});
    block->mlp_out = Join({&tensors.out});
    return absl::OkStatus();
  }

  absl::Status LoadEmbedding(Weights* weights) const {
    ASSIGN_OR_RETURN(const at::Tensor embedding, checkpoint.Embedding(dtype));
    weights->embedding = Place(embedding);
    weights->center_embedding = folded && FoldingCentersWriters(config);
    if (config.scale_embedding) {
      weights->embedding_scale =
          at::scalar_tensor(std::sqrt(static_cast<double>(config.d_model)),
                            at::kDouble)
              .to(dtype)
              .item<double>();
    }
    if (config.positions == PositionKind::kLearned) {
      ASSIGN_OR_RETURN(at::Tensor positions, checkpoint.Positions(ReadType()));
      if (weights->center_embedding) {
        positions.sub_(positions.mean(-1, /*keepdim=*/true));
      }
      weights->positions = Place(positions);
    }
    return absl::OkStatus();
  }

  absl::Status LoadUnembedding(Weights* weights) const {
    Unembedding& unembedding = weights->unembedding;
    ASSIGN_OR_RETURN(NormWeights norm, checkpoint.FinalNorm());
    if (config.tied_unembedding) {
      unembedding.linear = Linear::Shared(weights->embedding, {});
      if (folded) {
        unembedding.gain = norm.weight.to(device);
        if (norm.bias.defined()) unembedding.shift = norm.bias.to(device);
        unembedding.centers_rows = FoldingCentersWriters(config);
        unembedding.centers_logits = FoldingCentersLogits(config);
        norm = {};
      }
    } else {
      ASSIGN_OR_RETURN(Affine matrix, checkpoint.Unembedding(ReadType()));
      if (folded) FoldUnembedding(config, &norm, &matrix);
      unembedding.linear = Join({&matrix});
    }
    weights->final_norm = MakeNorm(norm);
    return absl::OkStatus();
  }
};

int64_t BytesOf(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

}  // namespace

int64_t Block::resident_bytes() const {
  int64_t total = 0;
  for (const Norm* norm :
       {&ln1, &ln1_post, &ln2, &ln2_post, &q_norm, &k_norm}) {
    total += norm->bytes();
  }
  for (const Linear* linear : {&qkv, &attention_out, &mlp_in, &mlp_out}) {
    total += linear->resident_bytes();
  }
  return total;
}

at::Tensor Unembedding::operator()(const at::Tensor& x, bool edited) const {
  at::Tensor rows = x;
  if (gain.defined()) {
    rows = rows.to(at::kFloat);
    if (edited && centers_rows) {
      rows = rows - rows.mean(-1, /*keepdim=*/true);
    }
    rows = rows * gain;
    if (shift.defined()) rows.add_(shift);
    rows = rows.to(x.scalar_type());
  }
  at::Tensor logits = linear(rows);
  if (centers_logits) logits.sub_(logits.mean(-1, /*keepdim=*/true));
  return logits;
}

int64_t Unembedding::resident_bytes() const {
  return linear.resident_bytes() + BytesOf(gain) + BytesOf(shift);
}

at::Tensor Weights::Embed(const at::Tensor& tokens) const {
  at::Tensor rows = at::embedding(embedding, tokens);
  if (embedding_scale != 1) rows.mul_(embedding_scale);
  if (!center_embedding) return rows;
  const at::Tensor wide = rows.to(at::kFloat);
  return (wide - wide.mean(-1, /*keepdim=*/true)).to(rows.scalar_type());
}

int64_t Weights::resident_bytes() const {
  int64_t total = BytesOf(embedding) + BytesOf(positions) + final_norm.bytes() +
                  unembedding.resident_bytes() + rotary.bytes() +
                  local_rotary.bytes();
  for (const Block& block : blocks) total += block.resident_bytes();
  return total;
}

absl::StatusOr<std::unique_ptr<const Weights>> LoadWeights(
    const ModelConfig& config, const Checkpoint& checkpoint,
    Processing processing, at::ScalarType dtype, at::Device device) {
  const c10::NoGradGuard no_grad;
  const Loader loader{.config = config,
                      .checkpoint = checkpoint,
                      .folded = processing == Processing::kFolded,
                      .dtype = dtype,
                      .device = device};
  auto weights = std::make_unique<Weights>();
  // An unembedding of its own first: it is held twice while it is packed, which
  // nothing else as large is, so that the peak is not above the sum.
  if (!config.tied_unembedding) {
    RETURN_IF_ERROR(loader.LoadUnembedding(weights.get()));
  }
  RETURN_IF_ERROR(loader.LoadEmbedding(weights.get()));
  if (config.tied_unembedding) {
    RETURN_IF_ERROR(loader.LoadUnembedding(weights.get()));
  }
  weights->blocks.resize(config.n_layers);
  for (int layer = 0; layer < config.n_layers; ++layer) {
    RETURN_IF_ERROR(loader.LoadAttention(layer, &weights->blocks[layer]));
    RETURN_IF_ERROR(loader.LoadMlp(layer, &weights->blocks[layer]));
  }
  const int64_t ready = std::min(config.n_ctx, kReadyPositions);
  if (config.rotary.rotary_dim > 0) {
    weights->rotary = RotaryTable(config.rotary, ready, dtype, device);
  }
  if (config.local_rotary.rotary_dim > 0) {
    weights->local_rotary =
        RotaryTable(config.local_rotary, ready, dtype, device);
  }
  return std::unique_ptr<const Weights>(std::move(weights));
}

}  // namespace cupola::model
