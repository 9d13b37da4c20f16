#include "server/model/norm.h"

#include <optional>

#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

std::optional<at::Tensor> Optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

}  // namespace

int64_t Norm::bytes() const {
  return static_cast<int64_t>((weight.defined() ? weight.nbytes() : 0) +
                              (bias.defined() ? bias.nbytes() : 0));
}

at::Tensor ApplyGain(const Norm& norm, const at::Tensor& normalized,
                     at::ScalarType dtype) {
  at::Tensor y = normalized.to(dtype);
  if (norm.weight.defined()) y = y * norm.weight;
  if (norm.bias.defined()) y = y + norm.bias;
  return y;
}

at::Tensor ApplyNorm(const Norm& norm, const at::Tensor& x) {
  if (norm.kind == NormKind::kLayerNorm) {
    return at::layer_norm(x, {x.size(-1)}, Optional(norm.weight),
                          Optional(norm.bias), norm.eps);
  }
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor inverse =
      wide.square().mean(-1, /*keepdim=*/true).add_(norm.eps).rsqrt_();
  at::Tensor y = at::mul(wide, inverse).to(x.scalar_type());
  if (norm.weight.defined()) y.mul_(norm.weight);
  return y;
}

absl::Status RunNorm(const Norm& norm, HookKind scale, HookKind normalized,
                     Pass* pass, at::Tensor* x) {
  if (!pass->Watches(scale) && !pass->Watches(normalized)) {
    *x = ApplyNorm(norm, *x);
    return absl::OkStatus();
  }
  const at::ScalarType dtype = x->scalar_type();
  at::Tensor wide = x->to(at::kFloat);
  if (norm.kind == NormKind::kLayerNorm) {
    wide = wide - wide.mean(-1, /*keepdim=*/true);
  }
  at::Tensor divisor =
      wide.square().mean(-1, /*keepdim=*/true).add_(norm.eps).sqrt_();
  RETURN_IF_ERROR(pass->Visit(scale, &divisor));
  at::Tensor rows = wide / divisor;
  RETURN_IF_ERROR(pass->Visit(normalized, &rows));
  *x = ApplyGain(norm, rows, dtype);
  return absl::OkStatus();
}

}  // namespace cupola::model
