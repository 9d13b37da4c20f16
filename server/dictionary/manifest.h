#ifndef CUPOLA_SERVER_DICTIONARY_MANIFEST_H_
#define CUPOLA_SERVER_DICTIONARY_MANIFEST_H_

#include <cstdint>
#include <optional>
#include <string>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/model/hook_point.h"
#include "server/model/json.h"
#include "server/model/model_config.h"

namespace cupola::dictionary {

enum class Kind { kSae, kTranscoder, kPair };

// The per-token architectures of SAELens. A transcoder is the same encoder with
// another output hook and perhaps a skip connection: Manifest::kind and skip.
enum class Architecture {
  kStandard,
  kGated,
  kJumpRelu,
  kTopK,
  kMatchingPursuit
};

enum class Normalize {
  kNone,
  kExpectedAverageOnlyIn,  // folded at load where a factor is stored
  kConstantNormRescale,    // x * sqrt(d_in) / |x|
  kLayerNorm,              // (x - mean) / (unbiased std + 1e-5)
};
// As cfg.json spells it.
const char* NormalizeName(Normalize normalize);

enum class Tap { kPreAffine, kPostAffine };
enum class MlpSource { kModel, kFile };

// What a catalog entry may change or add.
struct Overrides {
  std::optional<std::string> hook_in, hook_out;
  std::optional<model::Processing> processing;
  std::optional<Tap> tap;
  std::optional<bool> prepend_bos;
  at::ScalarType dtype = at::kFloat;
  bool fold_w_dec_norm = false;
  MlpSource mlp_source = MlpSource::kModel;
  std::optional<double> expected_l0, expected_fvu;
};

// Everything known of a dictionary but its numbers.
struct Manifest {
  Kind kind = Kind::kSae;
  Architecture architecture = Architecture::kStandard;
  std::string architecture_name;  // as SAELens names it
  bool skip = false;              // transcoders with W_skip
  int64_t d_in = 0, d_out = 0, d_sae = 0;
  int64_t k = 0;                              // TopK
  bool rescale_acts_by_decoder_norm = false;  // TopK
  // Matching pursuit: ends where the residual is shorter than this (0: never),
  // after max_iterations (0: d_in) or when a round adds no new latent.
  double residual_threshold = 1e-2;
  int64_t max_iterations = 0;
  bool stop_on_duplicate_support = true;
  bool apply_b_dec_to_input = false;
  Normalize normalize = Normalize::kNone;
  // The factor of kExpectedAverageOnlyIn; 0: the file stores none, and the
  // input is used as it is.
  double norm_scaling_factor = 0;
  bool finetuning_scaling_factor = false;  // a scaling_factor tensor counts
  bool reshape_hook_z = false;
  // Where the input is read and where the output belongs. Taps are resolved: a
  // POST_AFFINE dictionary on ln2.hook_normalized reads the ln2.hook_out point.
  model::HookPoint hook_in, hook_out;
  std::string hook_in_name, hook_out_name;  // as declared
  Tap tap = Tap::kPreAffine;
  // Folded where the file's model_from_pretrained_kwargs centre the writing
  // weights or fold the value biases (what changes a hook point's values).
  model::Processing processing = model::Processing::kRaw;
  bool prepend_bos = true;
  bool declares_prepend_bos = false;
  int64_t context_size = 0;         // 0: not declared
  std::string declared_model_name;  // recorded only
  at::ScalarType dtype = at::kFloat;
  bool fold_w_dec_norm = false;
  MlpSource mlp_source = MlpSource::kModel;
  bool has_mlp = false;  // known once the tensors are open
  std::optional<double> expected_l0, expected_fvu;

  // Canonical bytes of all the above that can change an answer (not has_mlp,
  // which the tensors decide, nor the expected values), for the digest.
  std::string fingerprint;
};

// From cfg.json of either generation (SAELens >= 6: metadata; before: flat,
// with its old defaults) or of a Jacobian SAE pair. Widths are checked against
// the model's hook points here, against the tensors later. INVALID_ARGUMENT /
// UNIMPLEMENTED naming key, value and what is accepted.
absl::StatusOr<Manifest> ParseManifest(const model::Json& cfg,
                                       const Overrides& overrides,
                                       const model::ModelConfig& model);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_MANIFEST_H_
