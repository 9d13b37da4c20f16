#ifndef CUPOLA_SERVER_DICTIONARY_NORMALIZATION_H_
#define CUPOLA_SERVER_DICTIONARY_NORMALIZATION_H_

#include "ATen/ATen.h"
#include "server/dictionary/manifest.h"

namespace cupola::dictionary {

// The run-time normalisations of a dictionary's input, as SAELens defines them;
// kExpectedAverageOnlyIn is folded into the weights at load. Pure functions; x
// is float32 [rows, d_in] on any device.

// The normalised input.
//   kConstantNormRescale: x * sqrt(d_in) / |x|
//   kLayerNorm: (x - mean) / (std + 1e-5), std with the divisor d_in - 1
at::Tensor NormalizeInput(Normalize normalize, const at::Tensor& x);

// Takes a reconstruction back to x's scale: times |x| / sqrt(d_in), or times
// std plus mean (no epsilon on this way).
at::Tensor DenormalizeOutput(Normalize normalize, const at::Tensor& x,
                             const at::Tensor& reconstruction);

// Whether DenormalizeOutput reads x.
bool DenormalizeNeedsInput(Normalize normalize);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_NORMALIZATION_H_
