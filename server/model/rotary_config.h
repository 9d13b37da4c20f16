#ifndef CUPOLA_SERVER_MODEL_ROTARY_CONFIG_H_
#define CUPOLA_SERVER_MODEL_ROTARY_CONFIG_H_

#include "absl/status/statusor.h"
#include "server/model/json.h"
#include "server/model/model_config.h"

namespace cupola::model {

// What a family assumes where its config is silent.
struct RotaryDefaults {
  double base = 10000;
  double fraction = 1;  // of d_head
};

// The rotary embedding of layers of `layer_type` ("full_attention",
// "sliding_attention"), from a config of either generation: `rope_parameters`
// (flat, or nested by layer type), or `rope_theta`, `rope_scaling`,
// `rotary_pct` and their like. Frequencies have float32's rounding, as Hugging
// Face computes them. Sliding layers of a config that is not nested take their
// base from `rope_local_base_freq` and no scaling when `local_is_unscaled`
// (Gemma-3). UNIMPLEMENTED: a scaling other than linear and llama3, with its
// name.
absl::StatusOr<Rotary> ParseRotary(const Json& config, const char* layer_type,
                                   const RotaryDefaults& defaults,
                                   int64_t d_head, int64_t n_ctx,
                                   bool local_is_unscaled);

// base^(-2i / rotary_dim) for i < rotary_dim / 2, unscaled.
Rotary PlainRotary(double base, int64_t rotary_dim, bool adjacent_pairs);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_ROTARY_CONFIG_H_
