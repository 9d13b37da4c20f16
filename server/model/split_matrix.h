#ifndef CUPOLA_SERVER_MODEL_SPLIT_MATRIX_H_
#define CUPOLA_SERVER_MODEL_SPLIT_MATRIX_H_

#include <cstdint>

#include "ATen/ATen.h"

namespace cupola::model {

// A float32 weight for processors with bfloat16 matrix tiles (Intel AMX), which
// do 16 times the arithmetic of their float32 units. A float32 is the sum of
// three bfloat16 (x = x1 + x2 + x3, each the rounded rest of those before), so
// a float32 product is a sum of bfloat16 products, added up in float32:
//
//   three parts  x w = x1 w1 + x1 w2 + x2 w1 + x2 w2 + x1 w3 + x3 w1
//   two parts    x w = x1 w1 + x1 w2 + x2 w1
//
// (Henry, Tang, Heinecke, "Leveraging the bfloat16 artificial intelligence
// datatype for higher-precision computations", 2019). Three parts leave out
// less than 2^-23 of sum |x_i w_i|: no more than what a float32 sum loses. Two
// parts are twice as fast and leave out up to 3 * 2^-16 of it; with random
// signs, the root mean square of their errors is 4.4e-6 of that of the outputs,
// whatever d_in.
//
// The weight is held as it came, in the tiles' order, and split while it is
// used: it takes as many bytes as before (padded to whole tiles) and loses
// nothing. Results beyond float32's range become NaN rather than infinite;
// values below 2^-126 count as zero. Immutable; any thread may call.
class SplitMatrix {
 public:
  enum class Parts { kTwo = 2, kThree = 3 };

  SplitMatrix() = default;  // empty: defined() is false

  // Whether this processor has the tiles and the system lets us use them.
  static bool Supported();

  // weight: float32 [out, in] on the CPU, contiguous. Only where Supported().
  SplitMatrix(const at::Tensor& weight, Parts parts);

  // x: float32 [rows, in], contiguous; bias: float32 [out] or undefined ->
  // float32 [rows, out].
  at::Tensor Multiply(const at::Tensor& x, const at::Tensor& bias) const;

  bool defined() const { return weight_.defined(); }
  int64_t bytes() const { return weight_.defined() ? weight_.nbytes() : 0; }
  // float32 [out, in], to the bit.
  at::Tensor Weight() const;
  // Some of its rows, float32 [outputs, in]. outputs: int64, on the CPU.
  at::Tensor Rows(const at::Tensor& outputs) const;

 private:
  // Panels of 32 outputs; in a panel steps of 32 inputs; in a step two tiles,
  // for outputs 0-15 and 16-31; in a tile 32 inputs of 16 outputs. float32.
  at::Tensor weight_;
  int64_t in_ = 0, out_ = 0;
  Parts parts_ = Parts::kThree;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_SPLIT_MATRIX_H_
