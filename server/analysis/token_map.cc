#include "server/analysis/token_map.h"

namespace cupola::analysis {
namespace {

// The dictionaries' layer_norm adds this to the standard deviation.
constexpr double kDictionaryEpsilon = 1e-5;

// [n, 1] beside [n, r, d].
at::Tensor Wide(const at::Tensor& scale) { return scale.unsqueeze(-1); }

at::Tensor Join(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? at::cat({a, b}, 1) : a;
}

at::Tensor Product(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? a * b : a;
}

// The map's diagonal part.
at::Tensor Scaled(const TokenMap& map, const at::Tensor& rows) {
  at::Tensor out = map.gain.defined() ? rows * map.gain : rows;
  return map.scale.defined() ? out * Wide(map.scale) : out;
}

at::Tensor Part(const at::Tensor& x, const at::Tensor& tokens) {
  return x.defined() ? x.index_select(0, tokens) : x;
}

at::Tensor RowSum(const at::Tensor& x) { return x.sum(-1, /*keepdim=*/true); }

}  // namespace

TokenMap TokenMap::Select(const at::Tensor& tokens) const {
  return {gain, Part(scale, tokens), Part(to, tokens), Part(from, tokens)};
}

at::Tensor Apply(const TokenMap& map, const at::Tensor& rows) {
  const at::Tensor out = Scaled(map, rows);
  if (!map.to.defined()) return out;
  // [n, k, r] of inner products, then their sum of `to`.
  return out + at::bmm(at::bmm(rows, map.from.transpose(1, 2)), map.to);
}

TokenMap Transposed(const TokenMap& map) {
  return {map.gain, map.scale, map.from, map.to};
}

TokenMap Compose(const TokenMap& first, const TokenMap& second) {
  TokenMap both;
  both.gain = Product(first.gain, second.gain);
  both.scale = Product(first.scale, second.scale);
  if (first.to.defined()) {
    both.to = Scaled(second, first.to);
    both.from = first.from;
  }
  if (second.to.defined()) {
    both.to = Join(both.to, second.to);
    both.from = Join(both.from, Apply(Transposed(first), second.from));
  }
  return both;
}

Normalisation::Normalisation(const model::Norm& norm, const at::Tensor& x)
    : centred_(norm.kind == model::NormKind::kLayerNorm),
      a_(1.0 / static_cast<double>(x.size(-1))),
      eps_(norm.eps) {
  Measure(x);
}

Normalisation::Normalisation(dictionary::Normalize normalize,
                             const at::Tensor& x) {
  const double d = static_cast<double>(x.size(-1));
  if (normalize == dictionary::Normalize::kLayerNorm) {
    centred_ = true;
    a_ = 1 / (d - 1);
    delta_ = kDictionaryEpsilon;
  } else {
    a_ = 1 / d;
  }
  Measure(x);
}

bool Normalisation::Normalises(dictionary::Normalize normalize) {
  return normalize == dictionary::Normalize::kLayerNorm ||
         normalize == dictionary::Normalize::kConstantNormRescale;
}

void Normalisation::Measure(const at::Tensor& x) {
  c_ = centred_ ? x - x.mean(-1, /*keepdim=*/true) : x;
  g_ = (RowSum(c_ * c_) * a_ + eps_).sqrt();
  value_ = c_ / (g_ + delta_);
}

Normalisation Normalisation::Select(const at::Tensor& tokens) const {
  Normalisation part = *this;
  for (at::Tensor* tensor : {&part.c_, &part.g_, &part.value_}) {
    *tensor = Part(*tensor, tokens);
  }
  return part;
}

TokenMap Normalisation::derivative() const {
  const at::Tensor h = g_ + delta_;
  TokenMap map;
  map.scale = h.reciprocal();
  map.to = (c_ * (-a_ / (g_ * h * h))).unsqueeze(1);
  map.from = c_.unsqueeze(1);
  if (centred_) {
    const at::Tensor ones = at::ones_like(map.from);
    map.to = Join(map.to, ones * Wide(-map.scale));
    map.from = Join(map.from, ones / static_cast<double>(c_.size(-1)));
  }
  return map;
}

at::Tensor Normalisation::Curvature(const at::Tensor& directions) const {
  const at::Tensor v = centred_
                           ? directions - directions.mean(-1, /*keepdim=*/true)
                           : directions;
  const at::Tensor c = c_.unsqueeze(1), g = Wide(g_), h = g + delta_;
  // g along v: g' = a (c . v) / g, g'' = (a |v|^2 - g'^2) / g.
  const at::Tensor g1 = RowSum(c * v) * a_ / g;
  const at::Tensor g2 = (RowSum(v * v) * a_ - g1 * g1) / g;
  const at::Tensor h2 = h * h;
  return v * (-2 * g1 / h2) + c * (2 * g1 * g1 / (h2 * h) - g2 / h2);
}

}  // namespace cupola::analysis
