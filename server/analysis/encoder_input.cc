#include "server/analysis/encoder_input.h"

#include "absl/status/status.h"
#include "server/dictionary/normalization.h"
#include "server/dictionary/weights.h"

namespace cupola::analysis {

absl::StatusOr<at::Tensor> EncoderInput(
    const dictionary::Dictionary& dictionary, const at::Tensor& x) {
  const dictionary::Weights& weights = dictionary.weights();
  at::Tensor input = dictionary::NormalizeInput(dictionary.manifest().normalize,
                                                x.to(at::kFloat));
  if (weights.b_in.defined()) input = input - weights.b_in;
  if (!at::isfinite(input).all().item<bool>()) {
    return absl::InvalidArgumentError(
        "the dictionary's input holds values that are not finite, or cannot "
        "be normalised");
  }
  return input.contiguous();
}

}  // namespace cupola::analysis
