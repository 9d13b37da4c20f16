#ifndef CUPOLA_SERVER_DICTIONARY_MATCHING_PURSUIT_H_
#define CUPOLA_SERVER_DICTIONARY_MATCHING_PURSUIT_H_

#include "ATen/ATen.h"
#include "server/dictionary/manifest.h"
#include "server/dictionary/weights.h"

namespace cupola::dictionary {

// Matching pursuit over the rows of W_dec, as SAELens runs it: each round
// finds, for every input row, the atom with the largest inner product with the
// residual (the lowest index wins ties), adds the product, if positive, to that
// atom's activation and subtracts it from the residual. A row ends when a round
// brings no new atom (stop_on_duplicate_support; that round still counts), when
// its residual is shorter than the threshold (where positive), or after
// max_iterations rounds. `input`: float32 [rows, d_in] -> float32 [rows,
// d_sae], on the same device. Rounds compute only the rows that have not ended.
at::Tensor EncodeMatchingPursuit(const Manifest& manifest,
                                 const Weights& weights,
                                 const at::Tensor& input);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_MATCHING_PURSUIT_H_
