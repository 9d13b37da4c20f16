#include "server/model/norm_vjp.h"

namespace cupola::model {
namespace {

at::Tensor RowMean(const at::Tensor& x) { return x.mean(-1, /*keepdim=*/true); }

}  // namespace

at::Tensor NormalizeVjp(NormKind kind, const at::Tensor& normalized,
                        const at::Tensor& scale, const at::Tensor& g,
                        bool frozen) {
  at::Tensor u = frozen ? g / scale
                        : at::addcmul(g, normalized, RowMean(g * normalized),
                                      /*value=*/-1)
                              .div_(scale);
  if (kind == NormKind::kLayerNorm) u.sub_(RowMean(u));
  return u;
}

}  // namespace cupola::model
