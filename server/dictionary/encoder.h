#ifndef CUPOLA_SERVER_DICTIONARY_ENCODER_H_
#define CUPOLA_SERVER_DICTIONARY_ENCODER_H_

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/manifest.h"
#include "server/dictionary/sparse_rows.h"
#include "server/dictionary/weights.h"

namespace cupola::dictionary {

// From an encoder's input to activations, for the architectures whose
// pre-activations are one product: pre = input W_enc + b_enc, then
//   standard  max(pre, 0)
//   jumprelu  pre where pre > threshold and pre > 0
//   gated     max(exp(r_mag) z + b_mag, 0) where z + b_gate > 0, with
//             z = input W_enc
//   topk      the k largest pre of the row (the lowest index wins ties), of
//             those the positive ones
//
// `input` is float32 [rows, d_in] on the weights' device, normalised and, where
// the manifest says so, without b_dec. All functions throw what LibTorch
// throws.

// INVALID_ARGUMENT when an activation overflows. Rows are computed in chunks;
// on a CPU all threads select from a chunk while it is in their caches, and
// dense activations never exist as a whole.
absl::StatusOr<SparseRows> EncodeSparse(const Manifest& manifest,
                                        const Weights& weights,
                                        const at::Tensor& input,
                                        const EncodeOptions& options);

// float32 [rows, d_sae] on the device.
at::Tensor EncodeAll(const Manifest& manifest, const Weights& weights,
                     const at::Tensor& input);

// The same for some latents only, for architectures without competition:
// `columns` [n, d_in] holds their columns of W_enc as rows, in the manifest's
// dtype, `latents` (int64 [n]) their indices, both on the device. float32
// [rows, n].
at::Tensor EncodeColumns(const Manifest& manifest, const Weights& weights,
                         const at::Tensor& input, const at::Tensor& columns,
                         const at::Tensor& latents);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_ENCODER_H_
