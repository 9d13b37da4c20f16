#ifndef CUPOLA_SERVER_DICTIONARY_DICTIONARY_H_
#define CUPOLA_SERVER_DICTIONARY_DICTIONARY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/manifest.h"
#include "server/model/linear.h"
#include "server/model/safetensors.h"
#include "storage/digest.h"

namespace cupola::dictionary {

// Active latents of some rows, CSR, on the CPU. Within a row indices ascend.
struct SparseRows {
  at::Tensor indptr;   // int64 [rows + 1]
  at::Tensor indices;  // int32 [entries]; values are < d_sae
  at::Tensor values;   // float32 [entries]
  int64_t columns = 0;  // d_sae
};

// Which activations Encode returns. An activation is kept when it is strictly
// above min_activation (>= 0); of those, per row, the top_k largest (0: all; the
// lowest index wins ties); `latents` (ascending, unique) narrows the result, after
// the architecture's own selection (TopK competes over all latents).
struct EncodeOptions {
  std::vector<int32_t> latents;
  int64_t top_k = 0;
  float min_activation = 0;
};

// A dictionary without its weights: manifest, shapes and digest. What outlives
// eviction. Immutable; any thread may call.
class DictionarySource {
 public:
  // Opens a folder (cfg.json, sae_weights.safetensors), applies the catalog's
  // overrides, and validates tensors, hook points and shapes against `model`.
  // INVALID_ARGUMENT / UNIMPLEMENTED with the reason.
  static absl::StatusOr<std::shared_ptr<const DictionarySource>> Open(
      const std::string& folder, const Overrides& overrides,
      const model::ModelConfig& model);

  const Manifest& manifest() const { return manifest_; }
  // SHA-256 of tensors, every cfg field read and the overrides.
  const storage::Digest& digest() const { return digest_; }
  const model::SafetensorsSet& tensors() const { return *tensors_; }
  int64_t WeightBytes() const;

 private:
  DictionarySource() = default;
  Manifest manifest_;
  storage::Digest digest_{};
  std::shared_ptr<const model::SafetensorsSet> tensors_;
};

// Which of a source's dictionaries: a pair holds two.
enum class Half { kIn, kOut };

// One encoder and decoder on a device. Rows are float32 at the border; inside,
// the encoder computes in the manifest's dtype. Equations: SAELens' (per
// architecture, see the .cc); results equal theirs within float32 rounding.
// Immutable; Encode and Decode may be called from one thread per device at a time.
class Dictionary {
 public:
  // For a dictionary that is no pair, `half` is kIn.
  static absl::StatusOr<std::shared_ptr<const Dictionary>> Load(
      std::shared_ptr<const DictionarySource> source, Half half,
      at::Device device);

  // x: [rows, d_in] (hook_z already flattened head-major), any float dtype, on
  // the device.
  absl::StatusOr<SparseRows> Encode(const at::Tensor& x,
                                    const EncodeOptions& options) const;
  // All activations, float32 [rows, d_sae], on the device.
  absl::StatusOr<at::Tensor> EncodeDense(const at::Tensor& x) const;
  // float32 [rows, d_out] on the device. `x` is the encoder's input: needed where
  // the architecture or the normalisation reads it (INVALID_ARGUMENT without it,
  // see DecodeNeedsInput).
  absl::StatusOr<at::Tensor> Decode(const SparseRows& features,
                                    const at::Tensor& x) const;
  bool DecodeNeedsInput() const;

  int64_t d_in() const;
  int64_t d_out() const;
  int64_t d_sae() const;
  const Manifest& manifest() const { return source_->manifest(); }
  Half half() const { return half_; }
  int64_t resident_bytes() const;

 private:
  struct Tensors;
  Dictionary() = default;
  std::shared_ptr<const DictionarySource> source_;
  Half half_ = Half::kIn;
  at::Device device_ = at::kCPU;
  std::shared_ptr<const Tensors> tensors_;
};

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_DICTIONARY_H_
