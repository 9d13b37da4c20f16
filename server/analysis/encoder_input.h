#ifndef CUPOLA_SERVER_ANALYSIS_ENCODER_INPUT_H_
#define CUPOLA_SERVER_ANALYSIS_ENCODER_INPUT_H_

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// What a dictionary's encoder multiplies with its weights: x [rows, d_in],
// normalised and without b_dec where the dictionary says so. float32,
// contiguous. INVALID_ARGUMENT where a value is not finite. Exceptions of
// LibTorch pass through.
absl::StatusOr<at::Tensor> EncoderInput(
    const dictionary::Dictionary& dictionary, const at::Tensor& x);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ENCODER_INPUT_H_
