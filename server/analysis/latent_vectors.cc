#include "server/analysis/latent_vectors.h"

#include "server/dictionary/weights.h"

namespace cupola::analysis {

at::Tensor LatentVectors(const dictionary::Dictionary& dictionary,
                         LatentSide side) {
  const dictionary::Weights& weights = dictionary.weights();
  return (side == LatentSide::kDecoder ? weights.W_dec
                                       : weights.encoder.Weight().t())
      .to(at::kFloat);
}

at::Tensor LatentVectors(const dictionary::Dictionary& dictionary,
                         LatentSide side, const std::vector<int64_t>& latents) {
  const dictionary::Weights& weights = dictionary.weights();
  const at::Tensor index =
      at::tensor(latents, at::kLong).to(dictionary.device());
  return (side == LatentSide::kDecoder ? weights.W_dec.index_select(0, index)
                                       : weights.encoder.Columns(index).t())
      .to(at::kFloat);
}

std::pair<at::Tensor, at::Tensor> LargestOfRows(const at::Tensor& rows,
                                                int64_t k) {
  const auto [values, indices] =
      at::sort(rows, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  return {values.narrow(-1, 0, k), indices.narrow(-1, 0, k)};
}

}  // namespace cupola::analysis
