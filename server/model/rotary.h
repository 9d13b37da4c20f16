#ifndef CUPOLA_SERVER_MODEL_ROTARY_H_
#define CUPOLA_SERVER_MODEL_ROTARY_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "server/model/model_config.h"

namespace cupola::model {

// Rotary position embeddings: the first rotary_dim components of a head, taken
// in pairs (x, y), turn by the angle position * frequency of the pair,
//   x' = x cos - y sin,  y' = y cos + x sin;
// the rest passes through. Pairs are (i, i + rotary_dim / 2), or (2i, 2i + 1)
// with adjacent_pairs. Angles, sines and cosines are float32; these then take
// the model's dtype. Immutable; any thread may call.
class RotaryTable {
 public:
  RotaryTable() = default;  // for a model without
  // Keeps the first `positions` positions ready; others are computed when
  // asked.
  RotaryTable(const Rotary& rotary, int64_t positions, at::ScalarType dtype,
              at::Device device);

  // x: [batch, positions, heads, d_head], from position 0 on; strides are free.
  // The result is contiguous.
  at::Tensor Rotate(const at::Tensor& x) const;
  // As above, each token at its own position: int64 [batch, positions].
  at::Tensor Rotate(const at::Tensor& x, const at::Tensor& positions) const;

  int64_t bytes() const;

 private:
  struct Angles {
    at::Tensor cos, sin;  // [positions, 1, rotary_dim / 2], or a batch of it
  };
  Angles Compute(int64_t positions) const;
  at::Tensor Turn(const at::Tensor& x, const Angles& angles) const;

  int64_t rotary_dim_ = 0;
  bool adjacent_pairs_ = false;
  at::ScalarType dtype_ = at::kFloat;
  at::Tensor frequencies_;  // [rotary_dim / 2], float32
  Angles ready_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_ROTARY_H_
