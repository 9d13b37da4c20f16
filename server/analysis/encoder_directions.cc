#include "server/analysis/encoder_directions.h"

#include "absl/strings/str_cat.h"
#include "server/dictionary/weights.h"

namespace cupola::analysis {

absl::Status CheckLinearEncoder(const dictionary::Manifest& manifest) {
  if (manifest.architecture == dictionary::Architecture::kMatchingPursuit) {
    return absl::InvalidArgumentError(
        "latents: a matching pursuit's activations are no linear function of "
        "its input");
  }
  if (manifest.normalize == dictionary::Normalize::kLayerNorm ||
      manifest.normalize == dictionary::Normalize::kConstantNormRescale) {
    return absl::InvalidArgumentError(absl::StrCat(
        "latents: this dictionary normalizes its input (",
        dictionary::NormalizeName(manifest.normalize),
        "), so that its pre-activations are no linear function of it"));
  }
  return absl::OkStatus();
}

EncoderDirections EncoderDirectionsOf(const dictionary::Dictionary& dictionary,
                                      const std::vector<int64_t>& latents) {
  const dictionary::Weights& weights = dictionary.weights();
  const at::Tensor index =
      at::tensor(latents, at::kLong).to(dictionary.device());
  const auto part = [&index](const at::Tensor& vector) {
    return vector.index_select(0, index).to(at::kFloat);
  };
  at::Tensor rows =
      weights.encoder.Columns(index).t().to(at::kFloat).contiguous();
  at::Tensor bias = at::zeros({rows.size(0)}, rows.options());
  if (weights.encoder.bias().defined()) bias = part(weights.encoder.bias());
  if (weights.b_mag.defined()) {
    rows = rows * part(weights.mag_scale).unsqueeze(-1);
    bias = part(weights.b_mag);
  }
  if (weights.b_in.defined()) bias = bias - at::mv(rows, weights.b_in);
  return {rows, bias};
}

}  // namespace cupola::analysis
