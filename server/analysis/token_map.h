#ifndef CUPOLA_SERVER_ANALYSIS_TOKEN_MAP_H_
#define CUPOLA_SERVER_ANALYSIS_TOKEN_MAP_H_

#include "ATen/ATen.h"
#include "server/dictionary/manifest.h"
#include "server/model/norm.h"

namespace cupola::analysis {

// A linear map of R^d that differs from token to token, as the derivatives of
// norms do: a diagonal and a few rank-one parts,
//   v -> scale * (gain . v) + sum_r to[r] (from[r] . v)
// so that constants of a dictionary stay constants behind it. Values; float32.
struct TokenMap {
  at::Tensor gain;      // [d], the same for all tokens; undefined: ones
  at::Tensor scale;     // [n, 1]; undefined: 1
  at::Tensor to, from;  // [n, r, d]; undefined: no such parts

  // Of some of the tokens: int64 [m].
  TokenMap Select(const at::Tensor& tokens) const;
};

// rows [n, k, d] through the map, or through its transpose.
at::Tensor Apply(const TokenMap& map, const at::Tensor& rows);
TokenMap Transposed(const TokenMap& map);
// First `first`, then `second`.
TokenMap Compose(const TokenMap& first, const TokenMap& second);

// A norm without gain and bias, or a dictionary's own normalisation, at given
// rows: its value, its derivative and, along directions, its second derivative.
//
// c / (g(c) + delta) with c = x, centred or not, and g(c) = sqrt(a |c|^2 +
// eps):
//   LayerNorm             centred, a = 1/d, eps, delta = 0
//   RMSNorm               a = 1/d, eps, delta = 0
//   a dictionary's layer_norm  centred, a = 1/(d-1), eps = 0, delta = 1e-5
//   constant_norm_rescale a = 1/d, eps = delta = 0
// The derivative is (I - c c^T a / (g (g + delta))) / (g + delta), on the
// centred direction.
class Normalisation {
 public:
  // Of a norm, without its gain and bias. x: [n, d] float32.
  Normalisation(const model::Norm& norm, const at::Tensor& x);
  // REQUIRES: Normalises(normalize).
  Normalisation(dictionary::Normalize normalize, const at::Tensor& x);
  static bool Normalises(dictionary::Normalize normalize);

  Normalisation Select(const at::Tensor& tokens) const;
  const at::Tensor& value() const { return value_; }  // [n, d]
  TokenMap derivative() const;
  // Of directions [n, k, d]: d^2/dt^2 f(x + t direction) at t = 0, [n, k, d].
  at::Tensor Curvature(const at::Tensor& directions) const;

 private:
  void Measure(const at::Tensor& x);

  bool centred_ = false;
  double a_ = 0, eps_ = 0, delta_ = 0;
  at::Tensor c_, g_, value_;  // [n, d], [n, 1], [n, d]
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_TOKEN_MAP_H_
