#ifndef CUPOLA_SERVER_DICTIONARY_HOOK_BINDING_H_
#define CUPOLA_SERVER_DICTIONARY_HOOK_BINDING_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/dictionary/manifest.h"
#include "server/model/hook_point.h"
#include "server/model/model_config.h"

namespace cupola::dictionary {

// Where a dictionary reads and what its output stands for.
struct HookBinding {
  model::HookPoint in, out;
  std::string in_name, out_name;  // as declared, before the tap is applied
  Tap tap = Tap::kPreAffine;
};

// `in_name` and `out_name` are the declared names, empty where nothing is
// declared. An SAE's output point is its input point. A pair that declares only
// its input, which must be the MLP's, writes to the MLP's output. A POST_AFFINE
// tap on a norm's hook_normalized becomes the point behind the norm's gain.
// INVALID_ARGUMENT naming key, value and what is accepted.
absl::StatusOr<HookBinding> BindHooks(Kind kind, const std::string& in_name,
                                      const std::string& out_name,
                                      std::optional<Tap> tap,
                                      const model::ModelConfig& model);

// The number of values at one position, [n_heads, d_head] flattened head-major.
// INVALID_ARGUMENT for points whose size depends on the sequence.
absl::StatusOr<int64_t> HookWidth(const model::HookPoint& hook,
                                  const model::ModelConfig& model);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_HOOK_BINDING_H_
