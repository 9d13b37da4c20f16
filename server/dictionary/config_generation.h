#ifndef CUPOLA_SERVER_DICTIONARY_CONFIG_GENERATION_H_
#define CUPOLA_SERVER_DICTIONARY_CONFIG_GENERATION_H_

#include "absl/status/statusor.h"
#include "server/model/json.h"

namespace cupola::dictionary {

// One flat object with the keys of SAELens 6 out of a cfg.json of any
// generation.
//
// From 6.0.0rc0 on, what concerns the language model stands in "metadata": it
// is lifted to the top level.
//
// Before, everything is flat. Keys are renamed (hook_point,
// hook_point_head_index, activation_fn_str) and the defaults of that time
// filled in: prepend_bos and apply_b_dec_to_input are true, the architecture is
// "standard", hook_z is flattened where the hook's name has it, a "topk"
// activation function makes the architecture "topk", and normalize_activations
// may be a boolean. A Jacobian SAE pair is of this generation.
//
// Other keys that are absent stay absent. INVALID_ARGUMENT naming the key, its
// value and what is accepted.
absl::StatusOr<model::Json> ToCurrentGeneration(const model::Json& cfg);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_CONFIG_GENERATION_H_
