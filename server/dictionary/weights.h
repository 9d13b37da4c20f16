#ifndef CUPOLA_SERVER_DICTIONARY_WEIGHTS_H_
#define CUPOLA_SERVER_DICTIONARY_WEIGHTS_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/dictionary_source.h"
#include "server/dictionary/encoder_screen.h"
#include "server/model/linear.h"

namespace cupola::dictionary {

// The numbers of one dictionary on a device, ready to be applied. What only
// rescales weights has been folded in, in this order:
//
// expected_average_only_in with its factor s: W_enc * s, W_dec / s, b_dec / s;
// b_enc and thresholds already live in the scaled space. The tied weights of
// matching pursuit stay: b_dec / s and residual_threshold / s.
//
// fold_w_dec_norm with n = max(|row of W_dec|, 1e-8): W_dec / n, and W_enc,
// b_enc, b_gate, b_mag and threshold * n.
//
// rescale_acts_by_decoder_norm: the same, but W_enc and b_enc * |row|, so that
// a latent with a zero row never wins.
//
// A fine-tuning scaling factor: rows of W_dec times it.
struct Weights {
  // [d_in, d_sae] with b_enc. Matching pursuit: W_dec itself, transposed,
  // shared and without a bias. Gated: without a bias.
  model::Linear encoder;
  EncoderScreen screen;  // of the encoder, where one applies
  at::Tensor W_dec;      // [d_sae, d_out] row-major, the manifest's dtype
  at::Tensor b_dec;  // float32 [d_out]; added to the output where defined
  at::Tensor b_in;   // float32 [d_in]; subtracted from the input where defined
  at::Tensor threshold;                 // JumpReLU: float32 [d_sae]
  at::Tensor b_gate, b_mag, mag_scale;  // gated: float32 [d_sae], exp(r_mag)
  model::Linear skip;             // [d_in, d_out], float32 input and output
  double residual_threshold = 0;  // matching pursuit

  // Every byte held, each tensor once.
  int64_t Bytes() const;
};

// The same numbers on the host, as PlaceWeights takes them to a device. Tensors
// that an architecture does not have are undefined.
struct HostWeights {
  at::Tensor W_enc;  // [d_sae, d_in], the manifest's dtype
  at::Tensor b_enc;  // float32 [d_sae]
  at::Tensor W_dec;  // [d_sae, d_out], the manifest's dtype
  at::Tensor b_dec;  // float32 [d_out]
  at::Tensor threshold, b_gate, b_mag, mag_scale;  // float32 [d_sae]
  at::Tensor W_skip;                               // float32 [d_out, d_in]
  double residual_threshold = 0;

  int64_t Bytes() const;
  // A copy in page-locked memory, from where a GPU reads fastest.
  HostWeights Pinned() const;
};

// INVALID_ARGUMENT: values that are not finite, or a scaling_factor tensor that
// the configuration does not announce. DATA_LOSS. At most one matrix more than
// the result is held on the way.
absl::StatusOr<HostWeights> ReadWeights(const DictionarySource& source,
                                        Half half);
// Where the host is the device, what need not be changed is shared with `host`.
// At most one matrix more than the result is held on the way.
Weights PlaceWeights(HostWeights host, const Manifest& manifest,
                     at::Device device);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_WEIGHTS_H_
