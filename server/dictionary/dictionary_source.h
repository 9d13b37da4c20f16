#ifndef CUPOLA_SERVER_DICTIONARY_DICTIONARY_SOURCE_H_
#define CUPOLA_SERVER_DICTIONARY_DICTIONARY_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/dictionary/manifest.h"
#include "server/model/safetensors.h"
#include "storage/digest.h"

namespace cupola::dictionary {

// Which of a source's dictionaries: a pair holds two.
enum class Half { kIn, kOut };

// The MLP a Jacobian pair was trained on, as its file stores it: float32 on the
// CPU, unprocessed.
struct MlpWeights {
  at::Tensor W_in;   // [d_model, d_mlp]
  at::Tensor b_in;   // [d_mlp]
  at::Tensor W_out;  // [d_mlp, d_model]
  at::Tensor b_out;  // [d_model]
};

// A dictionary without its weights: manifest, shapes and digest. What outlives
// eviction. Immutable; any thread may call.
class DictionarySource {
 public:
  // Opens a folder (cfg.json, sae_weights.safetensors), applies the catalog's
  // overrides, and validates hook points, the presence and the shapes of the
  // tensors, and that none belongs to another architecture. Values are looked
  // at by Dictionary::Load. INVALID_ARGUMENT / UNIMPLEMENTED / NOT_FOUND with
  // the reason.
  static absl::StatusOr<std::shared_ptr<const DictionarySource>> Open(
      const std::string& folder, const Overrides& overrides,
      const model::ModelConfig& model);

  const Manifest& manifest() const { return manifest_; }
  // SHA-256 of tensors, every cfg field read and the overrides.
  const storage::Digest& digest() const { return digest_; }
  const model::SafetensorsSet& tensors() const { return *tensors_; }
  // The file's name of a tensor ("W_enc") of one half.
  std::string TensorName(const std::string& name, Half half) const;
  // Bytes of the weights of all halves at the manifest's dtype.
  int64_t WeightBytes() const;
  // REQUIRES: manifest().has_mlp (else FAILED_PRECONDITION). INVALID_ARGUMENT
  // for values that are not finite, DATA_LOSS.
  absl::StatusOr<MlpWeights> ReadMlp() const;
  // float32 [d_sae] on the CPU: how often each latent fires, by
  // FOLDER/sparsity.safetensors, which holds log10 of it (SAELens; of a pair's
  // output half as `sparsity2`). No part of the digest. NOT_FOUND where no file
  // declares it.
  absl::StatusOr<at::Tensor> ReadDensity(Half half) const;

 private:
  DictionarySource() = default;
  Manifest manifest_;
  storage::Digest digest_{};
  std::shared_ptr<const model::SafetensorsSet> tensors_;
  std::string folder_;
};

// The named tensor as float32 on the CPU. INVALID_ARGUMENT when an entry is NaN
// or infinite, with their number; NOT_FOUND, DATA_LOSS.
absl::StatusOr<at::Tensor> ReadFinite(const model::SafetensorsSet& tensors,
                                      const std::string& name);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_DICTIONARY_SOURCE_H_
