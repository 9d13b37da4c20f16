#ifndef CUPOLA_SERVER_ANALYSIS_LATENT_VECTORS_H_
#define CUPOLA_SERVER_ANALYSIS_LATENT_VECTORS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// Which of a latent's two vectors.
enum class LatentSide { kDecoder, kEncoder };

// The latents' vectors as rows, float32 on the dictionary's device: of all
// [d_sae, width], or of a few [latents, width].
at::Tensor LatentVectors(const dictionary::Dictionary& dictionary,
                         LatentSide side);
at::Tensor LatentVectors(const dictionary::Dictionary& dictionary,
                         LatentSide side, const std::vector<int64_t>& latents);

// Each row's k largest values, and where they are; the lowest index wins ties.
std::pair<at::Tensor, at::Tensor> LargestOfRows(const at::Tensor& rows,
                                                int64_t k);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LATENT_VECTORS_H_
