#include "server/model/rotary.h"

#include <vector>

namespace cupola::model {

RotaryTable::RotaryTable(const Rotary& rotary, int64_t positions,
                         at::ScalarType dtype, at::Device device)
    : rotary_dim_(rotary.rotary_dim),
      adjacent_pairs_(rotary.adjacent_pairs),
      dtype_(dtype) {
  at::Tensor frequencies = at::empty(
      {static_cast<int64_t>(rotary.inverse_frequencies.size())}, at::kFloat);
  float* to = frequencies.mutable_data_ptr<float>();
  for (double frequency : rotary.inverse_frequencies) {
    *to++ = static_cast<float>(frequency);
  }
  frequencies_ = frequencies.to(device);
  ready_ = Compute(positions);
}

RotaryTable::Angles RotaryTable::Compute(int64_t positions) const {
  const at::Tensor index =
      at::arange(positions, frequencies_.options()).unsqueeze(-1);
  const at::Tensor angles = (index * frequencies_).unsqueeze(1);
  return {angles.cos().to(dtype_), angles.sin().to(dtype_)};
}

at::Tensor RotaryTable::Rotate(const at::Tensor& x) const {
  const int64_t positions = x.size(1);
  Angles angles = ready_;
  if (positions > ready_.cos.size(0)) {
    angles = Compute(positions);
  } else if (positions < ready_.cos.size(0)) {
    angles = {ready_.cos.narrow(0, 0, positions),
              ready_.sin.narrow(0, 0, positions)};
  }
  return Turn(x, angles);
}

at::Tensor RotaryTable::Rotate(const at::Tensor& x,
                               const at::Tensor& positions) const {
  const at::Tensor index = positions.flatten();
  const int64_t longest = index.max().item<int64_t>() + 1;
  const Angles angles =
      longest > ready_.cos.size(0) ? Compute(longest) : ready_;
  const auto rows = [&](const at::Tensor& table) {
    return table.index_select(0, index).unflatten(0, positions.sizes());
  };
  return Turn(x, {rows(angles.cos), rows(angles.sin)});
}

at::Tensor RotaryTable::Turn(const at::Tensor& x, const Angles& angles) const {
  const int64_t half = rotary_dim_ / 2;
  const int64_t rest = x.size(-1) - rotary_dim_;
  at::Tensor y = at::empty(x.sizes(), x.options());
  // The two components of every pair: [batch, positions, heads, half].
  const auto component = [&](const at::Tensor& t, int64_t which) {
    if (adjacent_pairs_) {
      return t.narrow(-1, 0, rotary_dim_)
          .unflatten(-1, {half, 2})
          .select(-1, which);
    }
    return t.narrow(-1, which * half, half);
  };
  const at::Tensor x0 = component(x, 0), x1 = component(x, 1);
  at::Tensor y0 = component(y, 0), y1 = component(y, 1);
  at::mul_out(y0, x0, angles.cos);
  y0.addcmul_(x1, angles.sin, -1);
  at::mul_out(y1, x1, angles.cos);
  y1.addcmul_(x0, angles.sin);
  if (rest > 0) {
    y.narrow(-1, rotary_dim_, rest).copy_(x.narrow(-1, rotary_dim_, rest));
  }
  return y;
}

int64_t RotaryTable::bytes() const {
  if (!frequencies_.defined()) return 0;
  return static_cast<int64_t>(frequencies_.nbytes() + ready_.cos.nbytes() +
                              ready_.sin.nbytes());
}

}  // namespace cupola::model
