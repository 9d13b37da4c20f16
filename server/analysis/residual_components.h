#ifndef CUPOLA_SERVER_ANALYSIS_RESIDUAL_COMPONENTS_H_
#define CUPOLA_SERVER_ANALYSIS_RESIDUAL_COMPONENTS_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/model/hook_point.h"
#include "server/model/model_config.h"

namespace cupola::analysis {

// How finely a residual is taken apart, in TransformerLens' row order:
//   kLayers   embed, pos_embed, then 0_attn_out, 0_mlp_out, 1_attn_out, ...
//             (decompose_resid)
//   kHeads    L0H0, L0H1, ..., then 0_mlp_out, 1_mlp_out, ..., embed,
//             pos_embed, bias: the output biases of the attention
//             (get_full_resid_decomposition without expand_neurons)
//   kNeurons  as kHeads, with L0N0, L0N1, ... for the MLPs, whose output biases
//             join `bias`
enum class ComponentLevel { kLayers, kHeads, kNeurons };

// The residual that is taken apart: the one entering `layer` (n_layers: the one
// the final norm reads), or with `mlp_input` the one that layer's MLP reads.
struct Decomposition {
  ComponentLevel level = ComponentLevel::kLayers;
  int layer = 0;
  bool mlp_input = false;
  // Dictionaries' output points. Each one's component (at kHeads and kNeurons:
  // a layer's attention or MLP as a whole, biases included) is told as what its
  // dictionary makes of it and what that misses: rows ..._reconstruction and
  // ..._error. At a residual's own point these stand for all that came before.
  std::vector<model::HookPoint> splits;
};

// INVALID_ARGUMENT: a layer outside the model, mlp_input behind the last one, a
// split that is no component of this residual or that another one stands for.
absl::Status CheckDecomposition(const Decomposition& decomposition,
                                const model::ModelConfig& config);

std::vector<std::string> ComponentLabels(const Decomposition& decomposition,
                                         const model::ModelConfig& config);
int64_t ComponentCount(const Decomposition& decomposition,
                       const model::ModelConfig& config);

// The hook point of the whole residual, and all that ProjectComponents reads.
model::HookPoint ResidualOf(const Decomposition& decomposition,
                            const model::ModelConfig& config);
std::set<model::HookPoint> ComponentHooks(const Decomposition& decomposition,
                                          const model::ModelConfig& config);

// The inner products of every component with directions: [rows, components, n]
// float32. `directions`: [n, d_model], or [rows, n, d_model] with some for each
// row. `reconstructions`: of each split, [rows, width] at its point.
//
// Components are what is added to the residual: in a family with post norms a
// head's or a neuron's share has passed the norm, at the scale it had, so that
// they sum to the residual (TransformerLens leaves the norm out there).
// REQUIRES: CheckDecomposition. Exceptions of LibTorch pass through.
absl::StatusOr<at::Tensor> ProjectComponents(
    const Pass& pass, const Decomposition& decomposition,
    const std::vector<Placed>& sequences, const at::Tensor& directions,
    const std::vector<at::Tensor>& reconstructions);

// x [rows, k, d_model] dotted with directions as above: [rows, k, n].
at::Tensor DotDirections(const at::Tensor& x, const at::Tensor& directions);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_RESIDUAL_COMPONENTS_H_
