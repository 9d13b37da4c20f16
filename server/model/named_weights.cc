#include "server/model/named_weights.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/model/checkpoint.h"
#include "server/model/processing.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::model {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

Shapes OutsideShapes(const ModelConfig& config, bool folded) {
  const int64_t d = config.d_model;
  Shapes shapes = {{"embed.W_E", {config.d_vocab, d}},
                   {"unembed.W_U", {d, config.d_vocab}},
                   {"unembed.b_U", {config.d_vocab}}};
  if (config.positions == PositionKind::kLearned) {
    shapes["pos_embed.W_pos"] = {config.n_ctx, d};
  }
  if (!folded) {
    shapes["ln_final.w"] = {d};
    if (config.norm == NormKind::kLayerNorm) shapes["ln_final.b"] = {d};
  }
  return shapes;
}

Shapes BlockShapes(const ModelConfig& config, bool folded) {
  const int64_t d = config.d_model, e = config.d_head, m = config.d_mlp;
  const int64_t heads = config.n_heads;
  Shapes shapes = {{"attn.W_O", {heads, e, d}}, {"attn.b_O", {d}},
                   {"mlp.W_in", {d, m}},        {"mlp.b_in", {m}},
                   {"mlp.W_out", {m, d}},       {"mlp.b_out", {d}}};
  for (const char* name : {"Q", "K", "V"}) {
    shapes[absl::StrCat("attn.W_", name)] = {heads, d, e};
    shapes[absl::StrCat("attn.b_", name)] = {heads, e};
  }
  if (config.n_kv_heads != heads) {
    for (const char* name : {"K", "V"}) {
      shapes[absl::StrCat("attn._W_", name)] = {config.n_kv_heads, d, e};
      shapes[absl::StrCat("attn._b_", name)] = {config.n_kv_heads, e};
    }
  }
  if (config.gated_mlp) {
    shapes["mlp.W_gate"] = {d, m};
    if (config.mlp_bias) shapes["mlp.b_gate"] = {m};
  }
  if (config.qk_norm) shapes["attn.q_norm.w"] = shapes["attn.k_norm.w"] = {e};
  if (config.post_norms) shapes["ln1_post.w"] = shapes["ln2_post.w"] = {d};
  if (!folded) {
    shapes["ln1.w"] = shapes["ln2.w"] = {d};
    if (config.norm == NormKind::kLayerNorm) {
      shapes["ln1.b"] = shapes["ln2.b"] = {d};
    }
  }
  return shapes;
}

at::Tensor OrZeros(const at::Tensor& bias, int64_t size) {
  return bias.defined() ? bias : at::zeros({size}, at::kFloat);
}

// [d_model, heads * d_head] or [heads * d_head] as TransformerLens shapes it,
// with every key/value head as often as query heads read it.
at::Tensor SplitHeads(const Affine& affine, bool bias, int64_t heads,
                      int64_t d_head, int64_t repeats) {
  at::Tensor split;
  if (bias) {
    split = OrZeros(affine.bias, heads * d_head).unflatten(-1, {heads, d_head});
  } else {
    split = affine.weight.unflatten(-1, {heads, d_head}).permute({1, 0, 2});
  }
  return repeats == 1 ? split : split.repeat_interleave(repeats, 0);
}

// Reads what one name needs, processed.
struct Reader {
  const ModelConfig& config;
  const Checkpoint& checkpoint;
  bool folded;
  at::ScalarType dtype;        // files are read in
  at::ScalarType model_dtype;  // the model computes in

  absl::StatusOr<at::Tensor> Attention(int layer,
                                       const std::string& leaf) const {
    ASSIGN_OR_RETURN(AttentionTensors tensors,
                     checkpoint.Attention(layer, dtype));
    if (folded) FoldAttention(config, &tensors);
    if (leaf == "ln1.w") return tensors.ln1.weight;
    if (leaf == "ln1.b") return tensors.ln1.bias;
    if (leaf == "ln1_post.w") return tensors.ln1_post.weight;
    if (leaf == "attn.q_norm.w") return tensors.q_norm.weight;
    if (leaf == "attn.k_norm.w") return tensors.k_norm.weight;
    if (leaf == "attn.b_O") return OrZeros(tensors.out.bias, config.d_model);
    if (leaf == "attn.W_O") {
      return tensors.out.weight.unflatten(0, {config.n_heads, config.d_head});
    }
    const char last = leaf.back();
    const bool bias = leaf[leaf.size() - 3] == 'b';
    const Affine& affine = last == 'Q'   ? tensors.q
                           : last == 'K' ? tensors.k
                                         : tensors.v;
    const int64_t heads = last == 'Q' ? config.n_heads : config.n_kv_heads;
    const bool once = leaf.find("attn._") == 0;
    return SplitHeads(affine, bias, heads, config.d_head,
                      once ? 1 : config.n_heads / heads);
  }

  absl::StatusOr<at::Tensor> Mlp(int layer, const std::string& leaf) const {
    ASSIGN_OR_RETURN(MlpTensors tensors, checkpoint.Mlp(layer, dtype));
    if (folded) FoldMlp(config, &tensors);
    if (leaf == "ln2.w") return tensors.ln2.weight;
    if (leaf == "ln2.b") return tensors.ln2.bias;
    if (leaf == "ln2_post.w") return tensors.ln2_post.weight;
    if (leaf == "mlp.W_gate") return tensors.gate.weight;
    if (leaf == "mlp.b_gate") return OrZeros(tensors.gate.bias, config.d_mlp);
    if (leaf == "mlp.W_in") return tensors.in.weight;
    if (leaf == "mlp.b_in") return OrZeros(tensors.in.bias, config.d_mlp);
    if (leaf == "mlp.W_out") return tensors.out.weight;
    return OrZeros(tensors.out.bias, config.d_model);
  }

  absl::StatusOr<at::Tensor> Embedding(bool learned_positions) const {
    at::Tensor rows;
    if (learned_positions) {
      ASSIGN_OR_RETURN(rows, checkpoint.Positions(dtype));
    } else {
      ASSIGN_OR_RETURN(rows, checkpoint.Embedding(dtype));
      if (config.scale_embedding) {
        // The factor is rounded to the model's dtype, as in the forward pass.
        rows.mul_(at::scalar_tensor(
            std::sqrt(static_cast<double>(config.d_model)), model_dtype));
      }
    }
    if (folded && FoldingCentersWriters(config)) {
      rows.sub_(rows.mean(-1, /*keepdim=*/true));
    }
    return rows;
  }

  absl::StatusOr<at::Tensor> Unembedding(const std::string& leaf) const {
    ASSIGN_OR_RETURN(NormWeights norm, checkpoint.FinalNorm());
    if (leaf == "ln_final.w") return norm.weight;
    if (leaf == "ln_final.b") return norm.bias;
    Affine matrix;
    if (config.tied_unembedding) {
      ASSIGN_OR_RETURN(const at::Tensor rows, checkpoint.Embedding(dtype));
      matrix.weight = rows.t();
    } else {
      ASSIGN_OR_RETURN(matrix, checkpoint.Unembedding(dtype));
    }
    if (folded) FoldUnembedding(config, &norm, &matrix);
    return leaf == "unembed.W_U" ? matrix.weight
                                 : OrZeros(matrix.bias, config.d_vocab);
  }

  absl::StatusOr<at::Tensor> Read(const NamedWeight& weight) const {
    const std::string& leaf = weight.leaf;
    if (weight.layer >= 0) {
      return leaf.find("attn.") == 0 || leaf.find("ln1") == 0
                 ? Attention(weight.layer, leaf)
                 : Mlp(weight.layer, leaf);
    }
    if (leaf == "embed.W_E") return Embedding(/*learned_positions=*/false);
    if (leaf == "pos_embed.W_pos") return Embedding(/*learned_positions=*/true);
    return Unembedding(leaf);
  }
};

}  // namespace

absl::StatusOr<NamedWeight> FindNamedWeight(absl::string_view name,
                                            const ModelConfig& config,
                                            Processing processing) {
  static const auto& kAlone =
      *new std::map<std::string, std::string>{{"W_E", "embed.W_E"},
                                              {"W_pos", "pos_embed.W_pos"},
                                              {"W_U", "unembed.W_U"},
                                              {"b_U", "unembed.b_U"}};
  NamedWeight weight;
  weight.leaf = std::string(name);
  if (const auto alone = kAlone.find(weight.leaf); alone != kAlone.end()) {
    weight.leaf = alone->second;
  }
  absl::string_view rest = name;
  std::string prefix;
  if (absl::ConsumePrefix(&rest, "blocks.")) {
    const size_t dot = rest.find('.');
    if (dot == absl::string_view::npos ||
        !absl::SimpleAtoi(rest.substr(0, dot), &weight.layer)) {
      return absl::NotFoundError(absl::StrCat(
          "weight \"", name, "\": after blocks. a layer and a dot follow"));
    }
    if (weight.layer < 0 || weight.layer >= config.n_layers) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight \"", name, "\": layer ", weight.layer,
                       " is not in 0 to ", config.n_layers - 1));
    }
    weight.leaf = std::string(rest.substr(dot + 1));
    prefix = absl::StrCat("blocks.", weight.layer, ".");
  }
  const bool folded = processing == Processing::kFolded;
  const Shapes shapes = weight.layer < 0 ? OutsideShapes(config, folded)
                                         : BlockShapes(config, folded);
  const auto found = shapes.find(weight.leaf);
  if (found == shapes.end()) {
    return absl::NotFoundError(absl::StrCat(
        "weight \"", name, "\": this model in ", ProcessingName(processing),
        " processing has ", weight.layer < 0 ? "blocks.L. and " : prefix, " ",
        absl::StrJoin(shapes, ", ",
                      [](std::string* out, const Shapes::value_type& entry) {
                        absl::StrAppend(out, entry.first);
                      })));
  }
  weight.name = prefix + weight.leaf;
  weight.shape = found->second;
  return weight;
}

absl::StatusOr<at::Tensor> ReadNamedWeight(const ModelSource& source,
                                           Processing processing,
                                           at::ScalarType dtype,
                                           const NamedWeight& weight) {
  return CatchTorch(
      absl::StrCat("reading ", weight.name),
      [&]() -> absl::StatusOr<at::Tensor> {
        ASSIGN_OR_RETURN(
            const Checkpoint checkpoint,
            Checkpoint::Open(source.config(), source.shared_tensors()));
        const bool folded = processing == Processing::kFolded;
        const Reader reader{.config = source.config(),
                            .checkpoint = checkpoint,
                            .folded = folded,
                            .dtype = folded ? at::kFloat : dtype,
                            .model_dtype = dtype};
        ASSIGN_OR_RETURN(const at::Tensor value, reader.Read(weight));
        return value.to(dtype).to(at::kFloat);
      });
}

}  // namespace cupola::model
