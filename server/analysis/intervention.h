#ifndef CUPOLA_SERVER_ANALYSIS_INTERVENTION_H_
#define CUPOLA_SERVER_ANALYSIS_INTERVENTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/dictionary/manifest.h"
#include "server/model/hook_point.h"
#include "server/model/model_config.h"
#include "storage/array.h"
#include "storage/digest.h"

namespace cupola::analysis {

// What an intervention does to a value x at its positions. The first five and
// kPatch act on a hook point, or on some of its heads and neurons; the last
// three on what a dictionary reads and writes, a being its activations and
// W_dec its decoder:
//   kSubtractLatents  y - sum over the latents of a W_dec; the dictionary's
//                     error and biases stay (the ablation of most papers)
//   kSetLatents       y + sum of (value - a) W_dec, or without the error
//                     decode(a with the values)
//   kReconstruct      decode(a with the values), the values being optional
// y is the dictionary's output point: x itself for an SAE. A normalised
// dictionary's contributions are scaled back as its reconstruction is.
enum class Change : uint8_t {
  kZero = 1,
  kSet = 2,         // value
  kAdd = 3,         // x + factor * value
  kScale = 4,       // x * factor
  kProjectOut = 5,  // x - value (x . value) / (value . value)
  kPatch = 6,       // the same point of a source prompt
  kSubtractLatents = 7,
  kSetLatents = 8,
  kReconstruct = 9,
};

// One typed change of the forward pass, but for where: its positions, and the
// source of a patch, belong to the prompt (see PromptChanges).
struct Intervention {
  Change change = Change::kZero;
  model::HookPoint hook;  // the point that changes
  // Narrow it to these of its heads, and of its last dimension; empty: all.
  std::vector<int64_t> heads, neurons;
  // FLOAT32: one number, a vector as long as the narrowed last dimension (each
  // head gets it), or as many values as one position has. Of kSet, kAdd and
  // kProjectOut.
  storage::Array value;
  // `value` is [rows, ...narrowed HookShape]: PlacedIntervention::value_rows
  // says which row is whose.
  bool per_position = false;
  double factor = 1;

  int dictionary = -1;           // which of the analysis' dictionaries
  model::HookPoint hook_in;      // where it reads
  std::vector<int32_t> latents;  // ascending, unique
  std::vector<float> values;     // of kSetLatents and kReconstruct, by latent
  bool keep_error = true;        // of kSetLatents

  bool on_latents() const { return change >= Change::kSubtractLatents; }
  // Whether nothing of the value that was there stays.
  bool replaces() const;
};

// Interventions that act together, in forward order; at one point in this
// order.
using InterventionSet = std::vector<Intervention>;

// One intervention on one prompt. Positions are >= 0, below the prompt's
// length, ascending and unique; a patch takes position source_positions[i] of
// `source` to positions[i].
struct PlacedIntervention {
  const Intervention* intervention = nullptr;
  std::vector<int64_t> positions;
  std::vector<int32_t> source;
  std::vector<int64_t> source_positions;
  // With per_position: positions[i] gets row value_rows[i] of the value.
  std::vector<int64_t> value_rows = {};
};

// Makes a value of a request what `Intervention::value` is: of all the point's
// heads and neurons it takes those that the intervention is narrowed to, and
// finds out whether it has a row per position. What does not fit is left for
// CheckIntervention to refuse.
void FitValue(const model::ModelConfig& config, Intervention* intervention);

// INVALID_ARGUMENT beginning with `field` and the part of the intervention that
// is wrong ("interventions[1].heads: 12 is not below 9"): heads or neurons that
// the point lacks, a value of another size, numbers that are not finite, a
// latent outside the dictionary. `manifest`: of the dictionary it names, else
// null.
absl::Status CheckIntervention(const Intervention& intervention,
                               const dictionary::Manifest* manifest,
                               const model::ModelConfig& config,
                               const std::string& field);

// INVALID_ARGUMENT naming two interventions of a set that contradict on a
// prompt: both leave nothing of the same values ("positions"), or set the same
// latent ("latents").
// `fields`: of the placed ones, in order.
absl::Status CheckAgreement(const std::vector<PlacedIntervention>& placed,
                            const std::vector<std::string>& fields);

// Everything of it that can change an answer.
void AddToIdentity(const Intervention& intervention, storage::Hasher* hasher);

// Attention's scores and patterns, [batch, n_heads, queries, keys]: no width of
// their own, and absent from passes that continue kept rows.
bool IsSquare(const model::HookPoint& hook);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_INTERVENTION_H_
