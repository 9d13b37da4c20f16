#ifndef CUPOLA_SERVER_ANALYSIS_ENCODER_DIRECTIONS_H_
#define CUPOLA_SERVER_ANALYSIS_ENCODER_DIRECTIONS_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// A few latents' pre-activations as a linear function of the dictionary's
// input: x . rows[t] + bias[t]. Of a gated dictionary that of the magnitude.
struct EncoderDirections {
  at::Tensor rows;  // float32 [latents, d_in]
  at::Tensor bias;  // float32 [latents]
};

// INVALID_ARGUMENT for encoders that are no such function: a matching pursuit,
// or an input that is normalized token by token.
absl::Status CheckLinearEncoder(const dictionary::Manifest& manifest);

// REQUIRES: CheckLinearEncoder; latents below d_sae. Exceptions of LibTorch
// pass through.
EncoderDirections EncoderDirectionsOf(const dictionary::Dictionary& dictionary,
                                      const std::vector<int64_t>& latents);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ENCODER_DIRECTIONS_H_
