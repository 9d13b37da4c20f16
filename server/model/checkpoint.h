#ifndef CUPOLA_SERVER_MODEL_CHECKPOINT_H_
#define CUPOLA_SERVER_MODEL_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/model/model_config.h"
#include "server/model/safetensors.h"
#include "server/model/weight_names.h"

namespace cupola::model {

// A matrix as x W + b, whatever its file's layout: weight [in, out], bias [out]
// or undefined.
struct Affine {
  at::Tensor weight, bias;
};

// A norm's gain and bias; bias is undefined for RMS, both where there is no
// norm. Gemma's stored gain has its 1 added already.
struct NormWeights {
  at::Tensor weight, bias;
};

// The weights of one attention sublayer. q: [d_model, n_heads * d_head], head
// after head; k, v with n_kv_heads; out: [n_heads * d_head, d_model].
struct AttentionTensors {
  NormWeights ln1, ln1_post, q_norm, k_norm;
  Affine q, k, v, out;
};

// The weights of one MLP. in, gate: [d_model, d_mlp]; out: [d_mlp, d_model].
struct MlpTensors {
  NormWeights ln2, ln2_post;
  Affine gate, in, out;
};

// The weights of a model in a set of safetensors, under the same names for
// every family. Matrices come in the dtype asked for, norms in float32. A value
// that is not finite is INVALID_ARGUMENT with the tensor's name. Immutable; any
// thread may call. Exceptions of LibTorch pass through.
class Checkpoint {
 public:
  // Checks that every tensor of the config is there with the right shape:
  // INVALID_ARGUMENT with the name, the shape expected and the shape found.
  static absl::StatusOr<Checkpoint> Open(
      const ModelConfig& config, std::shared_ptr<const SafetensorsSet> tensors);

  // [d_vocab, d_model], as stored (not scaled).
  absl::StatusOr<at::Tensor> Embedding(at::ScalarType dtype) const;
  // [n_ctx, d_model]. REQUIRES: learned positions.
  absl::StatusOr<at::Tensor> Positions(at::ScalarType dtype) const;
  absl::StatusOr<AttentionTensors> Attention(int layer,
                                             at::ScalarType dtype) const;
  absl::StatusOr<MlpTensors> Mlp(int layer, at::ScalarType dtype) const;
  absl::StatusOr<NormWeights> FinalNorm() const;
  // [d_model, d_vocab]. REQUIRES: the unembedding is not tied.
  absl::StatusOr<Affine> Unembedding(at::ScalarType dtype) const;

  // How many numbers the tensors hold, a tied matrix once.
  int64_t parameters() const;

 private:
  // A tensor that the config asks for.
  struct Wanted {
    std::string name;
    std::vector<int64_t> shape;
  };
  Checkpoint() = default;
  std::string InLayer(int layer, const char* module) const;
  void Want(const std::string& name, std::vector<int64_t> shape);
  void WantNorm(const std::string& module, int64_t width);
  void WantMatrix(const std::string& module, int64_t in, int64_t out,
                  bool has_bias);
  void WantLayer(int layer);
  absl::Status Validate() const;

  absl::StatusOr<at::Tensor> Read(const std::string& name,
                                  at::ScalarType dtype) const;
  absl::StatusOr<NormWeights> ReadNorm(const std::string& module) const;
  absl::StatusOr<Affine> ReadMatrix(const std::string& module, bool has_bias,
                                    at::ScalarType dtype) const;
  // One matrix for the three, cut apart.
  absl::Status ReadFusedQkv(int layer, at::ScalarType dtype,
                            AttentionTensors* result) const;

  ModelConfig config_;
  const WeightNames* names_ = nullptr;
  std::shared_ptr<const SafetensorsSet> tensors_;
  std::string prefix_, unembedding_;
  std::vector<Wanted> wanted_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_CHECKPOINT_H_
