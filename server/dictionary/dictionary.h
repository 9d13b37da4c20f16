#ifndef CUPOLA_SERVER_DICTIONARY_DICTIONARY_H_
#define CUPOLA_SERVER_DICTIONARY_DICTIONARY_H_

#include <cstdint>
#include <memory>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/dictionary_source.h"
#include "server/dictionary/manifest.h"
#include "server/dictionary/sparse_rows.h"

namespace cupola::dictionary {

struct Weights;      // server/dictionary/weights.h
struct HostWeights;  // the same

// One encoder and decoder on a device. Rows are float32 at the border; inside,
// the encoder computes in the manifest's dtype. Equations: SAELens' (encoder.h,
// matching_pursuit.h, normalization.h):
//   input   = normalise(x) - b_dec * [apply_b_dec_to_input]
//   output  = denormalise(acts W_dec + b_dec) [+ x W_skip^T]
// where a transcoder's output is not denormalised. Results equal SAELens'
// within float32 rounding. Immutable; Encode and Decode may be called from one
// thread per device at a time.
class Dictionary {
 public:
  // For a dictionary that is no pair, `half` is kIn. INVALID_ARGUMENT: tensors
  // with NaN or infinite values, with their names and numbers.
  // RESOURCE_EXHAUSTED when the device has no room.
  static absl::StatusOr<std::shared_ptr<const Dictionary>> Load(
      std::shared_ptr<const DictionarySource> source, Half half,
      at::Device device);
  // The same from what was read before, by ReadWeights of the same source and
  // half.
  static absl::StatusOr<std::shared_ptr<const Dictionary>> LoadFrom(
      HostWeights host, std::shared_ptr<const DictionarySource> source,
      Half half, at::Device device);
  ~Dictionary();

  // x: [rows, d_in] (hook_z already flattened head-major), any float dtype, on
  // the device. INVALID_ARGUMENT: another shape, type or device, values that
  // are not finite, bad options.
  absl::StatusOr<SparseRows> Encode(const at::Tensor& x,
                                    const EncodeOptions& options) const;
  // All activations, float32 [rows, d_sae], on the device.
  absl::StatusOr<at::Tensor> EncodeDense(const at::Tensor& x) const;
  // float32 [rows, d_out] on the device. `x` is the encoder's input: needed
  // where the architecture or the normalisation reads it (INVALID_ARGUMENT
  // without it, see DecodeNeedsInput); ignored elsewhere.
  absl::StatusOr<at::Tensor> Decode(const SparseRows& features,
                                    const at::Tensor& x) const;
  bool DecodeNeedsInput() const;

  int64_t d_in() const { return manifest().d_in; }
  int64_t d_out() const { return manifest().d_out; }
  int64_t d_sae() const { return manifest().d_sae; }
  const Manifest& manifest() const { return source_->manifest(); }
  const DictionarySource& source() const { return *source_; }
  Half half() const { return half_; }
  at::Device device() const { return device_; }
  // Every byte held: weights, and the columns kept for requests of few latents.
  int64_t resident_bytes() const;
  // For analyses that work on the weights themselves.
  const Weights& weights() const;

 private:
  struct Loaded;
  Dictionary() = default;
  absl::Status CheckInput(const at::Tensor& x) const;
  // The encoder's input, float32: normalised, without b_dec.
  absl::StatusOr<at::Tensor> EncoderInput(const at::Tensor& x) const;

  std::shared_ptr<const DictionarySource> source_;
  Half half_ = Half::kIn;
  at::Device device_ = at::kCPU;
  std::unique_ptr<const Loaded> loaded_;
};

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_DICTIONARY_H_
