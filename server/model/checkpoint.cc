#include "server/model/checkpoint.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(
    const ModelConfig& config, std::shared_ptr<const SafetensorsSet> tensors) {
  Checkpoint checkpoint;
  checkpoint.config_ = config;
  checkpoint.names_ = &WeightNamesOf(config.family);
  checkpoint.tensors_ = std::move(tensors);
  const WeightNames& names = *checkpoint.names_;
  checkpoint.prefix_ = names.prefixes.front();
  for (const std::string& prefix : names.prefixes) {
    if (checkpoint.tensors_->Has(
            absl::StrCat(prefix, names.embedding, ".weight"))) {
      checkpoint.prefix_ = prefix;
      break;
    }
  }
  checkpoint.unembedding_ = names.unembedding.front();
  for (const std::string& name : names.unembedding) {
    if (checkpoint.tensors_->Has(absl::StrCat(name, ".weight"))) {
      checkpoint.unembedding_ = name;
      break;
    }
  }

  const std::string& prefix = checkpoint.prefix_;
  checkpoint.Want(absl::StrCat(prefix, names.embedding, ".weight"),
                  {config.d_vocab, config.d_model});
  if (config.positions == PositionKind::kLearned) {
    checkpoint.Want(absl::StrCat(prefix, names.positions, ".weight"),
                    {config.n_ctx, config.d_model});
  }
  for (int layer = 0; layer < config.n_layers; ++layer) {
    checkpoint.WantLayer(layer);
  }
  checkpoint.WantNorm(absl::StrCat(prefix, names.final_norm), config.d_model);
  if (!config.tied_unembedding) {
    // An unembedding is a torch.nn.Linear in every family.
    checkpoint.Want(absl::StrCat(checkpoint.unembedding_, ".weight"),
                    {config.d_vocab, config.d_model});
    if (config.unembed_bias) {
      checkpoint.Want(absl::StrCat(checkpoint.unembedding_, ".bias"),
                      {config.d_vocab});
    }
  }
  RETURN_IF_ERROR(checkpoint.Validate());
  return checkpoint;
}

std::string Checkpoint::InLayer(int layer, const char* module) const {
  return absl::StrCat(prefix_, names_->layers, layer, ".", module);
}

void Checkpoint::Want(const std::string& name, std::vector<int64_t> shape) {
  wanted_.push_back({name, std::move(shape)});
}

void Checkpoint::WantNorm(const std::string& module, int64_t width) {
  Want(absl::StrCat(module, ".weight"), {width});
  if (config_.norm == NormKind::kLayerNorm) {
    Want(absl::StrCat(module, ".bias"), {width});
  }
}

void Checkpoint::WantMatrix(const std::string& module, int64_t in, int64_t out,
                            bool has_bias) {
  const bool out_first = names_->matrices == MatrixLayout::kOutIn;
  Want(absl::StrCat(module, ".weight"),
       {out_first ? out : in, out_first ? in : out});
  if (has_bias) Want(absl::StrCat(module, ".bias"), {out});
}

void Checkpoint::WantLayer(int layer) {
  const ModelConfig& c = config_;
  const int64_t query = c.n_heads * c.d_head;
  const int64_t key = c.n_kv_heads * c.d_head;
  const auto in_layer = [&](const char* module) {
    return InLayer(layer, module);
  };
  WantNorm(in_layer(names_->ln1), c.d_model);
  if (names_->qkv_layout == QkvLayout::kSeparate) {
    WantMatrix(in_layer(names_->q), c.d_model, query, c.qkv_bias);
    WantMatrix(in_layer(names_->k), c.d_model, key, c.qkv_bias);
    WantMatrix(in_layer(names_->v), c.d_model, key, c.qkv_bias);
  } else {
    WantMatrix(in_layer(names_->qkv), c.d_model, 3 * query, c.qkv_bias);
  }
  if (c.qk_norm) {
    WantNorm(in_layer(names_->q_norm), c.d_head);
    WantNorm(in_layer(names_->k_norm), c.d_head);
  }
  WantMatrix(in_layer(names_->out), query, c.d_model, c.attention_out_bias);
  if (c.post_norms) {
    WantNorm(in_layer(names_->ln1_post), c.d_model);
    WantNorm(in_layer(names_->ln2_post), c.d_model);
  }
  if (!c.shared_ln1) WantNorm(in_layer(names_->ln2), c.d_model);
  if (c.gated_mlp) {
    WantMatrix(in_layer(names_->gate), c.d_model, c.d_mlp, c.mlp_bias);
  }
  WantMatrix(in_layer(names_->mlp_in), c.d_model, c.d_mlp, c.mlp_bias);
  WantMatrix(in_layer(names_->mlp_out), c.d_mlp, c.d_model, c.mlp_bias);
}

absl::Status Checkpoint::Validate() const {
  for (const Wanted& wanted : wanted_) {
    const auto extent = tensors_->Find(wanted.name);
    if (!extent.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the config needs a tensor '", wanted.name, "' of shape ",
          ShapeText(wanted.shape), ": ", extent.status().message()));
    }
    if ((*extent)->shape != wanted.shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", wanted.name, "' has shape ", ShapeText((*extent)->shape),
          ", the config needs ", ShapeText(wanted.shape)));
    }
  }
  return absl::OkStatus();
}

int64_t Checkpoint::parameters() const {
  int64_t total = 0;
  for (const Wanted& wanted : wanted_) {
    int64_t count = 1;
    for (int64_t size : wanted.shape) count *= size;
    total += count;
  }
  return total;
}

absl::StatusOr<at::Tensor> Checkpoint::Read(const std::string& name,
                                            at::ScalarType dtype) const {
  ASSIGN_OR_RETURN(at::Tensor tensor, tensors_->Read(name, dtype));
  // One pass; a NaN makes both ends NaN.
  const auto [low, high] = at::aminmax(tensor.view({-1}));
  if (!std::isfinite(low.item<float>()) || !std::isfinite(high.item<float>())) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "' holds a value that is not finite"));
  }
  return tensor;
}

absl::StatusOr<NormWeights> Checkpoint::ReadNorm(
    const std::string& module) const {
  NormWeights norm;
  ASSIGN_OR_RETURN(norm.weight,
                   Read(absl::StrCat(module, ".weight"), at::kFloat));
  if (config_.norm_weight_offset) norm.weight.add_(1);
  if (config_.norm == NormKind::kLayerNorm) {
    ASSIGN_OR_RETURN(norm.bias,
                     Read(absl::StrCat(module, ".bias"), at::kFloat));
  }
  return norm;
}

absl::StatusOr<Affine> Checkpoint::ReadMatrix(const std::string& module,
                                              bool has_bias,
                                              at::ScalarType dtype) const {
  Affine affine;
  ASSIGN_OR_RETURN(affine.weight, Read(absl::StrCat(module, ".weight"), dtype));
  if (names_->matrices == MatrixLayout::kOutIn) {
    affine.weight = affine.weight.t();
  }
  if (has_bias) {
    ASSIGN_OR_RETURN(affine.bias, Read(absl::StrCat(module, ".bias"), dtype));
  }
  return affine;
}

absl::Status Checkpoint::ReadFusedQkv(int layer, at::ScalarType dtype,
                                      AttentionTensors* result) const {
  ASSIGN_OR_RETURN(const Affine fused, ReadMatrix(InLayer(layer, names_->qkv),
                                                  config_.qkv_bias, dtype));
  const int64_t heads = config_.n_heads;
  const int64_t width = heads * config_.d_head;
  // Splits the last dimension, 3 * width outputs, into its three parts.
  const auto part = [&](const at::Tensor& all, int64_t index) {
    if (names_->qkv_layout == QkvLayout::kBlocks) {
      return all.narrow(-1, index * width, width);
    }
    return all.unflatten(-1, {heads, 3, config_.d_head})
        .select(-2, index)
        .flatten(-2);
  };
  Affine* const parts[] = {&result->q, &result->k, &result->v};
  for (int64_t i = 0; i < 3; ++i) {
    parts[i]->weight = part(fused.weight, i);
    if (fused.bias.defined()) parts[i]->bias = part(fused.bias, i);
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Checkpoint::Embedding(at::ScalarType dtype) const {
  return Read(absl::StrCat(prefix_, names_->embedding, ".weight"), dtype);
}

absl::StatusOr<at::Tensor> Checkpoint::Positions(at::ScalarType dtype) const {
  return Read(absl::StrCat(prefix_, names_->positions, ".weight"), dtype);
}

absl::StatusOr<AttentionTensors> Checkpoint::Attention(
    int layer, at::ScalarType dtype) const {
  AttentionTensors result;
  ASSIGN_OR_RETURN(result.ln1, ReadNorm(InLayer(layer, names_->ln1)));
  if (names_->qkv_layout == QkvLayout::kSeparate) {
    const bool bias = config_.qkv_bias;
    ASSIGN_OR_RETURN(result.q,
                     ReadMatrix(InLayer(layer, names_->q), bias, dtype));
    ASSIGN_OR_RETURN(result.k,
                     ReadMatrix(InLayer(layer, names_->k), bias, dtype));
    ASSIGN_OR_RETURN(result.v,
                     ReadMatrix(InLayer(layer, names_->v), bias, dtype));
  } else {
    RETURN_IF_ERROR(ReadFusedQkv(layer, dtype, &result));
  }
  if (config_.qk_norm) {
    ASSIGN_OR_RETURN(result.q_norm, ReadNorm(InLayer(layer, names_->q_norm)));
    ASSIGN_OR_RETURN(result.k_norm, ReadNorm(InLayer(layer, names_->k_norm)));
  }
  ASSIGN_OR_RETURN(result.out, ReadMatrix(InLayer(layer, names_->out),
                                          config_.attention_out_bias, dtype));
  if (config_.post_norms) {
    ASSIGN_OR_RETURN(result.ln1_post,
                     ReadNorm(InLayer(layer, names_->ln1_post)));
  }
  return result;
}

absl::StatusOr<MlpTensors> Checkpoint::Mlp(int layer,
                                           at::ScalarType dtype) const {
  const bool bias = config_.mlp_bias;
  MlpTensors result;
  const char* ln2 = config_.shared_ln1 ? names_->ln1 : names_->ln2;
  ASSIGN_OR_RETURN(result.ln2, ReadNorm(InLayer(layer, ln2)));
  if (config_.gated_mlp) {
    ASSIGN_OR_RETURN(result.gate,
                     ReadMatrix(InLayer(layer, names_->gate), bias, dtype));
  }
  ASSIGN_OR_RETURN(result.in,
                   ReadMatrix(InLayer(layer, names_->mlp_in), bias, dtype));
  ASSIGN_OR_RETURN(result.out,
                   ReadMatrix(InLayer(layer, names_->mlp_out), bias, dtype));
  if (config_.post_norms) {
    ASSIGN_OR_RETURN(result.ln2_post,
                     ReadNorm(InLayer(layer, names_->ln2_post)));
  }
  return result;
}

absl::StatusOr<NormWeights> Checkpoint::FinalNorm() const {
  return ReadNorm(absl::StrCat(prefix_, names_->final_norm));
}

absl::StatusOr<Affine> Checkpoint::Unembedding(at::ScalarType dtype) const {
  Affine affine;
  ASSIGN_OR_RETURN(affine.weight,
                   Read(absl::StrCat(unembedding_, ".weight"), dtype));
  affine.weight = affine.weight.t();
  if (config_.unembed_bias) {
    ASSIGN_OR_RETURN(affine.bias,
                     Read(absl::StrCat(unembedding_, ".bias"), dtype));
  }
  return affine;
}

}  // namespace cupola::model
