#ifndef CUPOLA_SERVER_DICTIONARY_NAMED_TENSORS_H_
#define CUPOLA_SERVER_DICTIONARY_NAMED_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/dictionary.h"

namespace cupola::dictionary {

// A dictionary's tensors under SAELens' names and in its shapes:
//   W_enc [d_in, d_sae], W_dec [d_sae, d_out], b_enc, b_dec,
//   threshold [d_sae] (JumpReLU), b_gate, b_mag, r_mag [d_sae] (gated),
//   W_skip [d_out, d_in], and
//   density [d_sae]: the share of tokens on which a latent fires, as the
//   dictionary's makers measured it, from FOLDER/sparsity.safetensors
//   (SAELens' log10 frequencies).
// Values are those the server computes with: what weights.h folds is folded in,
// so that a TopK dictionary that rescales by its decoder's norms, say, has unit
// rows in W_dec.

// NOT_FOUND, with the names there are. A density is there for every name's
// sake: whether a file declares one only NamedTensor tells.
absl::StatusOr<std::vector<int64_t>> NamedTensorShape(const std::string& name,
                                                      const Manifest& manifest);

// float32; on the dictionary's device or the CPU. NOT_FOUND where no file
// declares a density.
absl::StatusOr<at::Tensor> NamedTensor(const Dictionary& dictionary,
                                       const std::string& name);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_NAMED_TENSORS_H_
