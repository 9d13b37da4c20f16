#include "server/model/rotary_vjp.h"

namespace cupola::model {

at::Tensor RotateBack(const Rotary& rotary, const RotaryTable& table,
                      const at::Tensor& x, const at::Tensor& positions) {
  // Mirrored, a turn goes the other way: the second component of every pair
  // changes its sign before and after.
  const int64_t half = rotary.rotary_dim / 2;
  at::Tensor mirror = at::ones({x.size(-1)}, x.options());
  at::Tensor turned = mirror.narrow(0, 0, rotary.rotary_dim);
  if (rotary.adjacent_pairs) {
    turned.view({half, 2}).select(1, 1).fill_(-1);
  } else {
    turned.narrow(0, half, half).fill_(-1);
  }
  return table.Rotate(x * mirror, positions.expand({x.size(0), -1}))
      .mul_(mirror);
}

}  // namespace cupola::model
