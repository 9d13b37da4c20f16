#ifndef CUPOLA_SERVER_DICTIONARY_ENCODER_SCREEN_H_
#define CUPOLA_SERVER_DICTIONARY_ENCODER_SCREEN_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "server/model/split_matrix.h"

namespace cupola::dictionary {

// Finds a TopK encoder's winners without computing all latents in full: for
// encoders that are held as a split matrix (split_matrix.h), whose first parts
// cost half the reading and a third of the products.
//
// With x1 and w1 the first parts (bfloat16) of an input x and of a latent's
// column w, what the first parts leave out of x . w is at most
//   |x - x1| |w| + |x1| |w - w1|                     (Cauchy and Schwarz)
// where |x - x1| is computed for each row and |w - w1| / |w| for each
// dictionary. Float32 sums lose less than (2 d_in + 64) 2^-24 |x| |w| (the
// first parts' sums, those of the values that are computed in full in the end,
// and the roundings of SelectNear together), adding the bias twice and
// comparing at most 2^-21 max |b|. So a pre-activation lies within
//   slack + radius |w|
// of the first parts' one: latents whose upper end is below the k-th largest
// lower end cannot win. The others (of random weights with k = 32 some 50) are
// computed by SplitMatrix::Dots and compete: the answer is what computing every
// latent so would have given. Subnormal numbers aside.
//
// Immutable; any thread may call.
class EncoderScreen {
 public:
  EncoderScreen() = default;  // where it does not apply: defined() is false

  // Applies where there are at least 64 k latents and no weight is too large to
  // be squared. bias: float32 [d_sae] or undefined.
  EncoderScreen(const model::SplitMatrix& encoder, const at::Tensor& bias,
                int64_t k);

  bool defined() const { return lengths_.defined(); }
  int64_t bytes() const { return defined() ? lengths_.nbytes() : 0; }

  // |w| of each latent, rounded up, float32 [d_sae].
  const float* lengths() const { return lengths_.const_data_ptr<float>(); }
  float slack() const { return slack_; }
  // Of an input row [d_in]; infinite where values might overflow.
  float Radius(const float* x) const;

 private:
  at::Tensor lengths_;
  int64_t d_in_ = 0;
  double rest_share_ = 0;  // the largest |w - w1| / |w|
  double longest_ = 0, largest_bias_ = 0;
  float slack_ = 0;
};

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_ENCODER_SCREEN_H_
