#ifndef CUPOLA_SERVER_ANALYSIS_ACTIVE_LATENTS_H_
#define CUPOLA_SERVER_ANALYSIS_ACTIVE_LATENTS_H_

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// Which latents of a token count as active.
enum class LatentMask {
  // A TopK dictionary's k slots, those included whose pre-activation is not
  // positive and whose activation is therefore 0 (the published definition);
  // of other dictionaries the positive ones.
  kSlots,
  kPositive,  // as torch.autograd sees them
};

// The latents of some tokens, padded to the longest row: of TopK dictionaries
// in descending order of their pre-activations (the lowest index wins ties),
// else in ascending index order.
struct ActiveLatents {
  at::Tensor indices;  // int64 [n, k], -1 where a row is shorter
  at::Tensor values;   // float32 [n, k], 0 there

  int64_t rows() const { return indices.size(0); }
  int64_t width() const { return indices.size(1); }
  // bool [n, k]: no padding.
  at::Tensor valid() const { return indices.ge(0); }
  // Indices that may be gathered with: 0 for padding.
  at::Tensor safe() const { return indices.clamp_min(0); }
  // `count` rows from `begin` on, without the padding that longer ones brought.
  ActiveLatents Rows(int64_t begin, int64_t count) const;
  // The activations above 0.
  dictionary::SparseRows ToSparse(int64_t d_sae) const;
};

// x: [n, d_in] at the dictionary's input. Both tensors lie on its device.
// Errors as Dictionary::Encode's. Exceptions of LibTorch pass through.
absl::StatusOr<ActiveLatents> FindActive(
    const dictionary::Dictionary& dictionary, const at::Tensor& x,
    LatentMask mask);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ACTIVE_LATENTS_H_
