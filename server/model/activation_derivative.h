#ifndef CUPOLA_SERVER_MODEL_ACTIVATION_DERIVATIVE_H_
#define CUPOLA_SERVER_MODEL_ACTIVATION_DERIVATIVE_H_

#include "ATen/ATen.h"
#include "server/model/model_config.h"

namespace cupola::model {

// An activation function and its derivatives at x, elementwise, as
// torch.autograd has them (0 for a ReLU at 0):
//   gelu      x P(x)            P + x p                  (2 - x^2) p
//   gelu_new  x (1 + T) / 2     (1 + T + x T') / 2       T' + x T'' / 2
//   silu      x s               s (1 + x (1 - s))        s (1 - s) (2 + x (1 -
//   2 s)) relu      max(x, 0)         [x > 0]                  0
// with P and p the standard normal's distribution and density, s the logistic
// function and T = tanh(sqrt(2 / pi) (x + 0.044715 x^3)).
struct ActivationJet {
  at::Tensor value, first;
  at::Tensor second;  // undefined unless asked for
};

// x: any float type and shape, kept. Exceptions of LibTorch pass through.
ActivationJet DifferentiateActivation(Activation activation,
                                      const at::Tensor& x, bool second);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_ACTIVATION_DERIVATIVE_H_
