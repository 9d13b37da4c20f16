#ifndef CUPOLA_SERVER_MODEL_SPLIT_MATRIX_H_
#define CUPOLA_SERVER_MODEL_SPLIT_MATRIX_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "absl/types/span.h"

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
// The weight is held as its first parts, which tiles take as they are, and the
// rest of its bits, from which further parts are made while it is used: it
// takes as many bytes as before (padded to whole tiles) and loses nothing.
// Results beyond float32's range become NaN rather than infinite; values below
// 2^-126 count as zero. Immutable; any thread may call.
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

  // x1 w1 + bias alone: half the reading and a third of the products of two
  // parts. Off by no more than |x - x1| |w| + |x1| |w - w1| and what float32
  // sums of `in` values lose.
  at::Tensor MultiplyFirstParts(const at::Tensor& x,
                                const at::Tensor& bias) const;

  // y[i] = x . w of outputs[i], in float32. x: [in].
  void Dots(const float* x, absl::Span<const int32_t> outputs, float* y) const;

  int64_t in_features() const { return in_; }
  int64_t out_features() const { return out_; }
  bool defined() const { return upper_.defined(); }
  int64_t bytes() const {
    return defined() ? upper_.nbytes() + rest_.nbytes() : 0;
  }
  // float32 [out, in], to the bit.
  at::Tensor Weight() const;
  // Some of its rows, float32 [outputs, in]. outputs: int64, on the CPU.
  at::Tensor Rows(const at::Tensor& outputs) const;

 private:
  // Tiles of 16 outputs and 32 inputs, those of the same outputs one behind the
  // other; in a tile 32 inputs of output 0, and so on. Int16: a value's upper
  // 16 bits, rounded, and its bits less those.
  at::Tensor upper_, rest_;
  int64_t in_ = 0, out_ = 0;
  Parts parts_ = Parts::kThree;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_SPLIT_MATRIX_H_
