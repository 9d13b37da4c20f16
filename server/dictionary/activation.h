#ifndef CUPOLA_SERVER_DICTIONARY_ACTIVATION_H_
#define CUPOLA_SERVER_DICTIONARY_ACTIVATION_H_

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/manifest.h"
#include "server/dictionary/sparse_rows.h"

namespace cupola::dictionary {

// What an architecture does with pre-activations, and the way from dense
// activations to CSR, in LibTorch's operators: for any device. The fast path of
// a CPU (selection.h) agrees with these exactly.

// The per-latent vectors an activation reads; undefined where an architecture
// has none. For a part of the latents, their parts.
struct ActivationVectors {
  at::Tensor threshold, b_gate, b_mag, mag_scale;  // float32 [n]
};

// Everything but TopK's competition. float32 [rows, n] -> float32 [rows, n].
at::Tensor Rectify(Architecture architecture, const ActivationVectors& vectors,
                   const at::Tensor& pre);

// Keeps each row's k largest entries (the lowest index wins ties), of those the
// positive ones, and zeroes the rest.
at::Tensor KeepTopK(const at::Tensor& pre, int64_t k);

// Activations [rows, n] as CSR with `d_sae` columns, under the options'
// min_activation and top_k; `columns` (int64 [n], ascending) tells which
// latents `acts` holds, undefined: all. INVALID_ARGUMENT when an activation is
// not finite.
absl::StatusOr<SparseRows> ToSparse(const at::Tensor& acts,
                                    const at::Tensor& columns, int64_t d_sae,
                                    const EncodeOptions& options);

// The error of a row whose activations are not finite.
absl::Status OverflowError(int64_t row);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_ACTIVATION_H_
