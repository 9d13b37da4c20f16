#include "server/model/kept_state.h"

namespace cupola::model {

int64_t KeptState::bytes() const {
  int64_t total = 0;
  const auto count = [&](const at::Tensor& tensor) {
    if (tensor.defined()) total += static_cast<int64_t>(tensor.nbytes());
  };
  for (const at::Tensor& tensor : keys) count(tensor);
  for (const at::Tensor& tensor : values) count(tensor);
  for (const auto& [layer, tensor] : residuals) count(tensor);
  return total;
}

}  // namespace cupola::model
