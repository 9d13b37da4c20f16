#ifndef CUPOLA_SERVER_DICTIONARY_DECODER_H_
#define CUPOLA_SERVER_DICTIONARY_DECODER_H_

#include "ATen/ATen.h"
#include "server/dictionary/sparse_rows.h"

namespace cupola::dictionary {

// features W_dec + b_dec: float32 [rows, d_out] on W_dec's device. W_dec is
// [d_sae, d_out], float32 or bfloat16; b_dec float32 [d_out] or undefined.
// Gathers the active latents' rows; where most latents are active a dense
// product is faster and is used instead. `features` must have passed CheckRows.
at::Tensor DecodeSparse(const SparseRows& features, const at::Tensor& W_dec,
                        const at::Tensor& b_dec);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_DECODER_H_
