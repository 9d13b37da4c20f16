#ifndef CUPOLA_SERVER_MODEL_RESIDENT_BOUND_H_
#define CUPOLA_SERVER_MODEL_RESIDENT_BOUND_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "server/model/model_config.h"

namespace cupola::model {

// A model's rotary tables are kept for this many positions at the most; longer
// prompts compute theirs.
inline constexpr int64_t kReadyPositions = 2048;

// Upper bounds of what objects hold once they are loaded, from their shapes
// alone: for those who must know before anything is read.

// Linear::resident_bytes() of a [in, out] weight: a packed layout pads both
// sides to its blocks.
int64_t LinearBytesBound(int64_t in, int64_t out, bool has_bias,
                         at::ScalarType dtype, at::Device device);

// Model::resident_bytes().
int64_t ModelBytesBound(const ModelConfig& config, at::ScalarType dtype,
                        at::Device device);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_RESIDENT_BOUND_H_
