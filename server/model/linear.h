#ifndef CUPOLA_SERVER_MODEL_LINEAR_H_
#define CUPOLA_SERVER_MODEL_LINEAR_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "server/model/split_matrix.h"

namespace cupola::model {

// What a float32 product may lose. kFull: what float32 sums lose. kReduced:
// also what two parts of a SplitMatrix leave out, 5e-6 of an output's scale,
// where that is faster. That is for the last product before an answer: a pass
// through a deep model multiplies such errors (30 layers make them 8e-5 of the
// last residual), so a model's own products are full.
enum class Precision { kFull, kReduced };

// y = x W + b with W held once, in the layout that is fastest on this device:
// on a CPU a split matrix, a oneDNN-packed weight or a plain matrix (timed once
// per process and shape), on CUDA a plain matrix. Immutable; any thread may
// call.
class Linear {
 public:
  Linear() = default;  // empty: defined() is false

  // `weight` [in, out], any float dtype and layout, is converted to `dtype` on
  // `device`; `bias` [out] or undefined. The caller should drop its own
  // reference to `weight`: a packed copy replaces the original.
  static Linear Create(const at::Tensor& weight, const at::Tensor& bias,
                       at::ScalarType dtype, at::Device device,
                       Precision precision = Precision::kFull);
  // Uses `weight` [out, in] (contiguous) as it is, without a copy: for a tied
  // unembedding, whose matrix is also the embedding's table.
  static Linear Shared(const at::Tensor& weight, const at::Tensor& bias);

  // x: [..., in] in the weight's dtype -> [..., out].
  at::Tensor operator()(const at::Tensor& x) const;

  bool defined() const { return out_features_ > 0; }
  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }
  // Bytes this object owns (0 for the weight of a shared one).
  int64_t resident_bytes() const;
  // The weight back in plain form, [in, out]: a copy, for inspection and
  // derived products.
  at::Tensor Weight() const;
  // The same of a few outputs, [in, outputs], which costs little but for a
  // oneDNN-packed weight. outputs: int64 [n], below out_features().
  at::Tensor Columns(const at::Tensor& outputs) const;
  const at::Tensor& bias() const { return bias_; }
  // Null where the weight is held in another layout.
  const SplitMatrix* split() const {
    return split_.defined() ? &split_ : nullptr;
  }

 private:
  at::Tensor plain_;   // [out, in], or undefined
  at::Tensor packed_;  // opaque oneDNN layout, or undefined
  SplitMatrix split_;  // or empty
  at::Tensor bias_;    // [out], or undefined
  int64_t in_features_ = 0, out_features_ = 0;
  bool shared_ = false;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_LINEAR_H_
