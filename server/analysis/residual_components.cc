#include "server/analysis/residual_components.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/analysis/residual_writes.h"
#include "server/analysis/rows.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"
#include "server/model/weights.h"

namespace cupola::analysis {
namespace {

using enum model::HookKind;
using model::HookPoint;

// Neighbouring rows of a decomposition that come from one tensor.
struct Piece {
  enum class Sort { kWhole, kReconstruction, kError, kHeads, kNeurons, kBias };
  Sort sort = Sort::kWhole;
  HookPoint hook;
  std::string label;  // but for heads and neurons
  size_t split = 0;   // which one, of a reconstruction and its error
};
using Sort = Piece::Sort;

Piece AttnOut(int layer) {
  return {Sort::kWhole, {kAttnOut, layer}, absl::StrCat(layer, "_attn_out")};
}
Piece MlpOut(int layer) {
  return {Sort::kWhole, {kMlpOut, layer}, absl::StrCat(layer, "_mlp_out")};
}

void AddEmbeddings(const model::ModelConfig& config,
                   std::vector<Piece>* pieces) {
  pieces->push_back({Sort::kWhole, {kEmbed}, "embed"});
  if (config.positions == model::PositionKind::kLearned) {
    pieces->push_back({Sort::kWhole, {kPosEmbed}, "pos_embed"});
  }
}

// The component that a dictionary's output point is part of.
HookPoint ComponentOf(const HookPoint& split) {
  if (split.kind == kZ) return {kAttnOut, split.layer};
  if (split.kind == kMlpPost) return {kMlpOut, split.layer};
  return split;
}

bool IsSplit(const Piece& piece) {
  return piece.sort == Sort::kReconstruction || piece.sort == Sort::kError;
}

// Replaces what a split stands for by its two rows. False: it stands for
// nothing of these.
bool Split(const HookPoint& split, size_t number, std::vector<Piece>* pieces) {
  const HookPoint whole = ComponentOf(split);
  auto at = std::find_if(pieces->begin(), pieces->end(), [&](const Piece& p) {
    return p.sort != Sort::kBias && !IsSplit(p) && ComponentOf(p.hook) == whole;
  });
  std::string label;
  if (at != pieces->end()) {
    label = whole.kind == kAttnOut  ? AttnOut(split.layer).label
            : whole.kind == kMlpOut ? MlpOut(split.layer).label
                                    : at->label;
    at = pieces->erase(at);
  } else {
    const bool residual = split.kind == kResidPre || split.kind == kResidMid ||
                          split.kind == kResidPost;
    if (!residual) return false;
    const char* suffix = split.kind == kResidPre   ? "_pre"
                         : split.kind == kResidMid ? "_mid"
                                                   : "_post";
    label = absl::StrCat(split.layer, suffix);
    const auto before = [&](const Piece& p) {
      return p.sort != Sort::kBias &&
             ForwardOrder(p.hook) <= ForwardOrder(split);
    };
    if (std::any_of(pieces->begin(), pieces->end(),
                    [&](const Piece& p) { return IsSplit(p) && before(p); })) {
      return false;
    }
    std::erase_if(*pieces, before);
    at = pieces->begin();
  }
  at = pieces->insert(at, {Sort::kError, split, label + "_error", number});
  pieces->insert(
      at, {Sort::kReconstruction, split, label + "_reconstruction", number});
  return true;
}

// Before any split.
std::vector<Piece> WholePieces(const Decomposition& d,
                               const model::ModelConfig& config) {
  // A parallel block's MLP reads what enters the block.
  const bool own_attention = d.mlp_input && !config.parallel_blocks;
  const int attention_layers = d.layer + (own_attention ? 1 : 0);
  std::vector<Piece> pieces;
  if (d.level == ComponentLevel::kLayers) {
    AddEmbeddings(config, &pieces);
    for (int layer = 0; layer < attention_layers; ++layer) {
      pieces.push_back(AttnOut(layer));
      if (layer < d.layer) pieces.push_back(MlpOut(layer));
    }
    return pieces;
  }
  for (int layer = 0; layer < attention_layers; ++layer) {
    pieces.push_back({Sort::kHeads, {kZ, layer}, ""});
  }
  for (int layer = 0; layer < d.layer; ++layer) {
    if (d.level == ComponentLevel::kNeurons) {
      pieces.push_back({Sort::kNeurons, {kMlpPost, layer}, ""});
    } else {
      pieces.push_back(MlpOut(layer));
    }
  }
  AddEmbeddings(config, &pieces);
  pieces.push_back({Sort::kBias, {kEmbed}, "bias"});
  return pieces;
}

std::vector<Piece> PiecesOf(const Decomposition& d,
                            const model::ModelConfig& config) {
  std::vector<Piece> pieces = WholePieces(d, config);
  for (size_t i = 0; i < d.splits.size(); ++i) Split(d.splits[i], i, &pieces);
  return pieces;
}

int64_t CountOf(const Piece& piece, const model::ModelConfig& config) {
  if (piece.sort == Sort::kHeads) return config.n_heads;
  if (piece.sort == Sort::kNeurons) return config.d_mlp;
  return 1;
}

// Projects the pieces of one batch.
class Projector {
 public:
  Projector(const Pass& pass, const Decomposition& decomposition,
            const std::vector<Placed>& sequences, const at::Tensor& directions,
            const std::vector<at::Tensor>& reconstructions)
      : pass_(pass),
        config_(pass.model->config()),
        decomposition_(decomposition),
        sequences_(sequences),
        directions_(directions),
        reconstructions_(reconstructions) {}

  absl::StatusOr<at::Tensor> Project(const Piece& piece) const {
    switch (piece.sort) {
      case Sort::kHeads:
        return Heads(piece.hook.layer);
      case Sort::kNeurons:
        return Neurons(piece.hook.layer);
      case Sort::kBias:
        return Bias();
      case Sort::kWhole: {
        ASSIGN_OR_RETURN(const at::Tensor x, Gather(piece.hook));
        return Dot(x);
      }
      case Sort::kReconstruction: {
        ASSIGN_OR_RETURN(const at::Tensor x, Reconstruction(piece.split));
        return Dot(x);
      }
      case Sort::kError: {
        ASSIGN_OR_RETURN(const at::Tensor x, Reconstruction(piece.split));
        ASSIGN_OR_RETURN(const at::Tensor whole,
                         Gather(ComponentOf(piece.hook)));
        return Dot(whole - x);
      }
    }
    return absl::InternalError("a component of no sort");
  }

 private:
  // Directions as a sublayer's output sees them, and the scale it is divided by
  // afterwards (undefined: none).
  struct Seen {
    at::Tensor directions, scale;
  };

  absl::StatusOr<at::Tensor> Gather(const HookPoint& hook) const {
    ASSIGN_OR_RETURN(const at::Tensor rows,
                     GatherRows(pass_, hook, sequences_));
    return rows.to(at::kFloat);
  }
  at::Tensor Dot(const at::Tensor& x) const {
    return DotDirections(x.unsqueeze(1), directions_);
  }
  const model::Block& block(int layer) const {
    return pass_.model->weights().blocks[layer];
  }

  absl::StatusOr<Seen> Through(const model::Norm& post,
                               const HookPoint& scale) const {
    if (!config_.post_norms) return Seen{directions_, {}};
    ASSIGN_OR_RETURN(const at::Tensor divisor, Gather(scale));
    return Seen{directions_ * post.weight.to(at::kFloat),
                divisor.unsqueeze(-1)};
  }
  absl::StatusOr<Seen> ThroughAttention(int layer) const {
    return Through(block(layer).ln1_post, {kLn1PostScale, layer});
  }
  absl::StatusOr<Seen> ThroughMlp(int layer) const {
    return Through(block(layer).ln2_post, {kLn2PostScale, layer});
  }
  static at::Tensor Scaled(const at::Tensor& x, const at::Tensor& scale) {
    return scale.defined() ? x / scale : x;
  }

  absl::StatusOr<at::Tensor> Reconstruction(size_t number) const {
    const HookPoint& split = decomposition_.splits[number];
    const at::Tensor x =
        ToResidual(*pass_.model, split, reconstructions_[number]);
    if (!config_.post_norms || (split.kind != kZ && split.kind != kMlpPost)) {
      return x;
    }
    ASSIGN_OR_RETURN(const at::Tensor scale,
                     Gather({split.kind == kZ ? kLn1PostScale : kLn2PostScale,
                             split.layer}));
    return x / scale;
  }

  // z_h W_O[h], head by head.
  absl::StatusOr<at::Tensor> Heads(int layer) const {
    ASSIGN_OR_RETURN(at::Tensor z, Gather({kZ, layer}));
    z = z.unflatten(-1, {config_.n_heads, config_.d_head});
    const at::Tensor W_O = block(layer)
                               .attention_out.Weight()
                               .to(at::kFloat)
                               .unflatten(0, {config_.n_heads, config_.d_head});
    ASSIGN_OR_RETURN(const Seen seen, ThroughAttention(layer));
    at::Tensor shares;
    if (seen.directions.dim() == 2) {
      const at::Tensor projected = at::matmul(W_O, seen.directions.t());
      shares = at::einsum("rhe,hen->rhn", {z, projected});
    } else {
      shares =
          DotDirections(at::einsum("rhe,hed->rhd", {z, W_O}), seen.directions);
    }
    return Scaled(shares, seen.scale);
  }

  // a_n W_out[n], neuron by neuron, without ever forming these rows.
  absl::StatusOr<at::Tensor> Neurons(int layer) const {
    ASSIGN_OR_RETURN(const at::Tensor post, Gather({kMlpPost, layer}));
    ASSIGN_OR_RETURN(const Seen seen, ThroughMlp(layer));
    const at::Tensor W_out = block(layer).mlp_out.Weight().to(at::kFloat);
    const at::Tensor projected =
        at::matmul(W_out, seen.directions.transpose(-1, -2));
    return Scaled(post.unsqueeze(-1) * projected, seen.scale);
  }

  absl::StatusOr<at::Tensor> Bias() const {
    const int64_t rows = TotalRows();
    at::Tensor sum =
        at::zeros({rows, 1, directions_.size(-2)}, directions_.options());
    const auto add = [&](const at::Tensor& bias, const Seen& seen) {
      if (!bias.defined()) return;
      const at::Tensor x =
          bias.to(at::kFloat).view({1, 1, -1}).expand({rows, 1, -1});
      sum = sum + Scaled(DotDirections(x, seen.directions), seen.scale);
    };
    for (const Piece& piece : PiecesOf(decomposition_, config_)) {
      const int layer = piece.hook.layer;
      if (piece.sort == Sort::kHeads) {
        ASSIGN_OR_RETURN(const Seen seen, ThroughAttention(layer));
        add(block(layer).attention_out.bias(), seen);
      } else if (piece.sort == Sort::kNeurons) {
        ASSIGN_OR_RETURN(const Seen seen, ThroughMlp(layer));
        add(block(layer).mlp_out.bias(), seen);
      }
    }
    return sum;
  }

  int64_t TotalRows() const {
    int64_t rows = 0;
    for (const Placed& placed : sequences_) rows += RowCount(*placed.sequence);
    return rows;
  }

  const Pass& pass_;
  const model::ModelConfig& config_;
  const Decomposition& decomposition_;
  const std::vector<Placed>& sequences_;
  const at::Tensor& directions_;
  const std::vector<at::Tensor>& reconstructions_;
};

}  // namespace

at::Tensor DotDirections(const at::Tensor& x, const at::Tensor& directions) {
  return at::matmul(x, directions.transpose(-1, -2));
}

absl::Status CheckDecomposition(const Decomposition& d,
                                const model::ModelConfig& config) {
  if (d.layer < 0 || d.layer > config.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer is ", d.layer, "; accepted: 0 to ", config.n_layers,
                     ", or -1 for the last residual"));
  }
  if (d.mlp_input && d.layer == config.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("mlp_input is set, but layer ", d.layer,
                     " has no MLP; accepted: 0 to ", config.n_layers - 1));
  }
  std::vector<Piece> pieces = WholePieces(d, config);
  for (size_t i = 0; i < d.splits.size(); ++i) {
    const HookPoint& split = d.splits[i];
    const std::string field = absl::StrCat("split_dictionaries[", i, "]");
    RETURN_IF_ERROR(CheckWritesToResidual(split, field));
    if (ForwardOrder(split) > ForwardOrder(ResidualOf(d, config)) ||
        !Split(split, i, &pieces)) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": ", model::HookName(split), " is no component of ",
          model::HookName(ResidualOf(d, config)),
          i > 0 ? " that the dictionaries before it leave" : ""));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> ComponentLabels(const Decomposition& decomposition,
                                         const model::ModelConfig& config) {
  std::vector<std::string> labels;
  for (const Piece& piece : PiecesOf(decomposition, config)) {
    if (piece.sort != Sort::kHeads && piece.sort != Sort::kNeurons) {
      labels.push_back(piece.label);
      continue;
    }
    const char* letter = piece.sort == Sort::kHeads ? "H" : "N";
    for (int64_t i = 0; i < CountOf(piece, config); ++i) {
      labels.push_back(absl::StrCat("L", piece.hook.layer, letter, i));
    }
  }
  return labels;
}

int64_t ComponentCount(const Decomposition& decomposition,
                       const model::ModelConfig& config) {
  int64_t count = 0;
  for (const Piece& piece : PiecesOf(decomposition, config)) {
    count += CountOf(piece, config);
  }
  return count;
}

HookPoint ResidualOf(const Decomposition& d, const model::ModelConfig& config) {
  if (d.layer == config.n_layers) return {kResidPost, d.layer - 1};
  const bool mid = d.mlp_input && !config.parallel_blocks;
  return {mid ? kResidMid : kResidPre, d.layer};
}

std::set<HookPoint> ComponentHooks(const Decomposition& decomposition,
                                   const model::ModelConfig& config) {
  std::set<HookPoint> hooks = {ResidualOf(decomposition, config)};
  for (const Piece& piece : PiecesOf(decomposition, config)) {
    const bool parts =
        piece.sort == Sort::kHeads || piece.sort == Sort::kNeurons;
    hooks.insert(parts ? piece.hook : ComponentOf(piece.hook));
    if (!config.post_norms) continue;
    const int layer = piece.hook.layer;
    if (piece.hook.kind == kZ) hooks.insert({kLn1PostScale, layer});
    if (piece.hook.kind == kMlpPost) hooks.insert({kLn2PostScale, layer});
  }
  return hooks;
}

absl::StatusOr<at::Tensor> ProjectComponents(
    const Pass& pass, const Decomposition& decomposition,
    const std::vector<Placed>& sequences, const at::Tensor& directions,
    const std::vector<at::Tensor>& reconstructions) {
  const Projector projector(pass, decomposition, sequences, directions,
                            reconstructions);
  std::vector<at::Tensor> parts;
  for (const Piece& piece : PiecesOf(decomposition, pass.model->config())) {
    RETURN_IF_ERROR(pass.poll());
    ASSIGN_OR_RETURN(at::Tensor part, projector.Project(piece));
    parts.push_back(std::move(part));
  }
  return at::cat(parts, 1);
}

}  // namespace cupola::analysis
