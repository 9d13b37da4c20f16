#include "server/model/mlp_vjp.h"

#include "server/model/activation_derivative.h"

namespace cupola::model {

MlpCotangents MlpVjp(Activation activation, const at::Tensor& pre,
                     const at::Tensor& linear, const at::Tensor& g) {
  const ActivationJet jet =
      DifferentiateActivation(activation, pre, /*second=*/false);
  if (!linear.defined()) return {g * jet.first, {}};
  return {g * (jet.first * linear), g * jet.value};
}

}  // namespace cupola::model
