#include "server/model/activation_derivative.h"

#include <cmath>

#include "server/model/mlp.h"

namespace cupola::model {
namespace {

ActivationJet Gelu(const at::Tensor& x, bool second) {
  const at::Tensor distribution = at::erf(x * std::sqrt(0.5)).add_(1).mul_(0.5);
  const at::Tensor density =
      at::exp(x * x * -0.5).mul_(1 / std::sqrt(2 * M_PI));
  ActivationJet jet;
  jet.value = x * distribution;
  jet.first = at::addcmul(distribution, x, density);
  if (second) jet.second = (2 - x * x) * density;
  return jet;
}

ActivationJet GeluTanh(const at::Tensor& x, bool second) {
  constexpr double kCubic = 0.044715;
  const double root = std::sqrt(2 / M_PI);
  const at::Tensor square = x * x;
  const at::Tensor t = at::tanh(x * (square * kCubic + 1) * root);
  const at::Tensor inner = (square * (3 * kCubic) + 1) * root;
  const at::Tensor rest = 1 - t * t;
  const at::Tensor t1 = rest * inner;
  ActivationJet jet;
  jet.value = (t + 1) * x * 0.5;
  jet.first = (t + 1 + x * t1) * 0.5;
  if (second) {
    const at::Tensor t2 = rest * (x * (6 * kCubic * root)) - 2 * t * t1 * inner;
    jet.second = t1 + x * t2 * 0.5;
  }
  return jet;
}

ActivationJet Silu(const at::Tensor& x, bool second) {
  const at::Tensor s = at::sigmoid(x);
  const at::Tensor rest = 1 - s;
  ActivationJet jet;
  jet.value = x * s;
  jet.first = s * (x * rest + 1);
  if (second) jet.second = s * rest * (x * (1 - 2 * s) + 2);
  return jet;
}

}  // namespace

ActivationJet DifferentiateActivation(Activation activation,
                                      const at::Tensor& x, bool second) {
  switch (activation) {
    case Activation::kGelu:
      return Gelu(x, second);
    case Activation::kGeluNew:
    case Activation::kGeluFast:
      return GeluTanh(x, second);
    case Activation::kSilu:
      return Silu(x, second);
    case Activation::kRelu:
      break;
  }
  ActivationJet jet = {at::relu(x), x.gt(0).to(x.scalar_type()), {}};
  if (second) jet.second = at::zeros_like(x);
  return jet;
}

}  // namespace cupola::model
