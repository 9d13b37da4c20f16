#ifndef CUPOLA_SERVER_ANALYSIS_ATTRIBUTION_H_
#define CUPOLA_SERVER_ANALYSIS_ATTRIBUTION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/analysis/residual_components.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// What a residual's components are attributed to.
enum class AttributionTarget {
  kTokens,   // logits, or differences of logits (direct logit attribution)
  kLatents,  // a dictionary's encoder columns (direct feature attribution)
  kVectors,  // given directions [n, d_model]
  kNone,     // nothing: the components themselves, n = d_model
};

struct AttributionQuery {
  Decomposition decomposition;
  AttributionTarget target = AttributionTarget::kTokens;
  // kTokens: how many each sequence brings (AttributionLists), and whether it
  // brings as many incorrect ones.
  int64_t tokens = 0;
  bool differences = false;
  bool gain = true;  // see model/logit_directions.h
  std::vector<int64_t> latents;
  // Of latents on mlp.hook_post: what stands for the neurons that do not fire.
  // FLOAT32 [components, d_mlp], or [components, d_model] of components as the
  // MLP's norm shows them, which then go through W_in; empty: zero.
  storage::Array inactive, reference;
  storage::Array vectors;  // FLOAT32 [n, d_model]
  // kVectors, kNone: centre (LayerNorm) and divide by the scale of the norm
  // that reads the residual, as TransformerLens' apply_ln_to_stack.
  bool apply_norm = false;
  // The mean over each sequence's rows instead of the rows.
  bool mean = false;
};

// What Sequence::lists hold for kTokens.
enum AttributionLists : size_t { kTokensList, kIncorrectList };

// A dictionary of the decomposition's splits, in their order, and where it
// reads.
struct SplitDictionary {
  std::shared_ptr<const dictionary::Dictionary> dictionary;
  model::HookPoint hook_in;
};

// Where a dictionary's latents read from the residual stream: the residual, the
// norm between (nullopt: none), and whether the norm's gain and the MLP's W_in
// lie between too.
struct LatentReading {
  int layer = 0;
  bool mlp_input = false;
  std::optional<model::HookPoint> scale = std::nullopt;
  bool gain = false;
  bool neurons = false;
};

// INVALID_ARGUMENT for a point that is no linear view of one residual at a
// given scale, or an encoder that is no product of its input with W_enc, with
// what is accepted.
absl::StatusOr<LatentReading> ReadingOf(const model::HookPoint& hook_in,
                                        const dictionary::Manifest& manifest,
                                        const model::ModelConfig& config);

// Attribution of a residual's components to directions, at every selected
// position:
//   value[row, c, t] = (component c . direction t) / scale[row]
// with the scale that the reading norm had (ln_final.hook_scale for tokens) and
// its centring in the direction. A latent's direction is its column of W_enc
// and the sum its pre-activation; a gated one's is that of its magnitude. For a
// dictionary on mlp.hook_post components go through W_in (without b_in) onto
// the neurons, those that do not fire at that token are replaced (`inactive`),
// and the rest meets the latent's column: the direct feature attribution of
// published notebooks. That is no pre-activation, so bias is zero.
//
// Record: values FLOAT32 [rows, components, n]; total FLOAT32 [rows, n]: the
// same of the whole residual, which the components sum to; bias FLOAT32 [n]:
// what total lacks to the logit (before a softcap) or the pre-activation. With
// `mean` there is one row, of zeros where the sequence has none. Rows are
// computed a few at a time, so that beside the records a batch takes bounded
// memory.
class AttributionAnalysis : public Analysis {
 public:
  // `dictionary`: the latents', read at `hook_in`; null without latents.
  AttributionAnalysis(std::shared_ptr<const dictionary::Dictionary> dictionary,
                      model::HookPoint hook_in,
                      std::vector<SplitDictionary> splits,
                      AttributionQuery query, const model::ModelConfig& config);
  // `dictionary`: of the latents, all zeros without; `splits`: one for each.
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const std::vector<storage::Digest>& splits,
                                  const AttributionQuery& query);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  struct Directions {
    // [n, d_model], or of each row [rows, n, d_model]; of neurons d_mlp.
    at::Tensor rows;
    at::Tensor bias;  // [n], or [sequences, n]
  };
  struct Values {
    at::Tensor values, total;  // [rows, components, n], [rows, n]
  };

  // How many rows are computed at a time for `n` targets.
  int64_t RowsAtOnce(int64_t n) const;
  // Those that do not depend on the sequences; of tokens none.
  Directions FixedDirections(const model::Model& model) const;
  Directions LatentDirections(const model::Model& model) const;
  Directions TokenDirections(const model::Model& model,
                             const std::vector<Placed>& sequences) const;
  // Of latents on neurons, whose directions differ from row to row: replaces
  // `directions` (of neurons) by those of the residual, [rows, n, d_model], and
  // returns what stands for silent neurons, [rows, components, n] or undefined.
  absl::StatusOr<at::Tensor> ThroughNeurons(
      const Pass& pass, const std::vector<Placed>& sequences,
      Directions* directions) const;
  absl::StatusOr<std::vector<at::Tensor>> Reconstructions(
      const Pass& pass, const std::vector<Placed>& sequences) const;
  absl::StatusOr<Values> Attribute(const Pass& pass,
                                   const std::vector<Placed>& sequences,
                                   Directions directions) const;
  // The scale that values are divided by; nullopt: none.
  std::optional<model::HookPoint> Scale() const;

  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const model::HookPoint hook_in_;
  const std::vector<SplitDictionary> splits_;
  const AttributionQuery query_;
  const model::ModelConfig config_;
  std::optional<LatentReading> reading_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ATTRIBUTION_H_
