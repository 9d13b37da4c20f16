#ifndef CUPOLA_SERVER_MODEL_MODEL_H_
#define CUPOLA_SERVER_MODEL_MODEL_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/model/growing_state.h"
#include "server/model/hook_point.h"
#include "server/model/kept_state.h"
#include "server/model/model_config.h"
#include "server/model/safetensors.h"
#include "server/model/tokenizer/tokenizer.h"
#include "storage/digest.h"

namespace cupola::model {

struct Weights;  // server/model/weights.h

// A model without its weights: what outlives eviction, so that a cached answer
// needs no loaded model. Immutable; any thread may call.
class ModelSource {
 public:
  // Opens a Hugging Face folder: parses config.json and the tokenizer,
  // validates the tensors' names and shapes against the config, and hashes
  // everything.
  static absl::StatusOr<std::shared_ptr<const ModelSource>> Open(
      const std::string& folder);

  const ModelConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const SafetensorsSet& tensors() const { return *tensors_; }
  const std::shared_ptr<const SafetensorsSet>& shared_tensors() const {
    return tensors_;
  }
  // SHA-256 of tensors, tokenizer and every config field read.
  const storage::Digest& digest() const { return digest_; }
  // The tokens after which a text is complete, as transformers' generate takes
  // them: generation_config.json's, else config.json's.
  const std::vector<int32_t>& eos_token_ids() const { return eos_token_ids_; }
  // Parameters, each once, at `dtype`.
  int64_t WeightBytes(at::ScalarType dtype) const;

 private:
  ModelSource() = default;
  ModelConfig config_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const SafetensorsSet> tensors_;
  std::vector<int32_t> eos_token_ids_;
  storage::Digest digest_{};
  int64_t parameters_ = 0;
};

// Right-padded token rows. In a causal model right padding needs no mask: no
// real position sees a padded one.
struct TokenBatch {
  at::Tensor tokens;             // [batch, longest] int64, on the CPU
  std::vector<int64_t> lengths;  // [batch]
  // Pads with 0.
  static TokenBatch Pack(const std::vector<const std::vector<int32_t>*>& rows);
};

struct ForwardRequest {
  TokenBatch batch;
  // What to return. The pass ends after the last of them (and of `logits`,
  // `stop_at_layer`), in the middle of a block if need be.
  std::set<HookPoint> captures;
  bool logits = false;
  // Ends with the residual ENTERING this layer (TransformerLens'
  // stop_at_layer); n_layers: the residual after the last block. Unset: only
  // captures decide.
  std::optional<int> stop_at_layer;
  // Starts from `start_residual` [batch, longest, d_model], the residual
  // entering `start_layer`, instead of the embedding.
  int start_layer = 0;
  at::Tensor start_residual;
  // May change the tensor of a hook point in place or replace it, in forward
  // order; captures of the point come after it. Called only for points in
  // `edits` that the pass comes by. The value is a copy of the pass's own, so
  // that an edit of hook_mlp_in, say, leaves the residual stream alone.
  std::set<HookPoint> edits;
  std::function<absl::Status(const HookPoint&, at::Tensor* value)> edit;
  // Keeps what later passes need to continue the rows.
  std::optional<Keep> keep;
  // The rows continue kept ones: the batch then holds what comes from position
  // continuation.first[row] on, padded on the right, and so do the start
  // residual, the edits' values and the result. Such a pass makes no attention
  // scores or patterns that could be watched, and keeps nothing.
  Continuation continuation;
  // The batch holds one more token for each row of this, in its order: the pass
  // appends their keys and values to it and makes logits. Not together with
  // `continuation`, `keep`, `stop_at_layer` or a start residual. A pass that
  // fails leaves the rows as long as they were. Outlives the pass.
  GrowingState* growing = nullptr;
  // Polled between layers: a non-OK status ends the pass with it.
  std::function<absl::Status()> poll;
};

struct ForwardResult {
  // [batch, longest, ...HookShape], contiguous; scores and patterns [batch,
  // n_heads, longest, longest]. They may share memory with each other. Model
  // dtype, except norm scales and normalized values, which are float32 in a
  // bfloat16 model (as in TransformerLens).
  std::map<HookPoint, at::Tensor> captures;
  at::Tensor residual;  // [batch, longest, d_model] with stop_at_layer
  at::Tensor logits;    // [batch, longest, d_vocab], softcapped
  std::shared_ptr<KeptState> kept;  // with `keep`
};

// A model with weights on a device, in one processing. Immutable, shared: an
// eviction drops a reference and running requests finish. Forward may be called
// from one thread per device at a time.
class Model {
 public:
  struct Options {
    Processing processing = Processing::kRaw;
    at::ScalarType dtype = at::kFloat;  // or kBFloat16
    at::Device device = at::kCPU;
  };
  // Reads, processes and packs tensor by tensor: the peak is the result plus
  // one layer. RESOURCE_EXHAUSTED when the device has no room.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(
      std::shared_ptr<const ModelSource> source, const Options& options);
  ~Model();

  absl::StatusOr<ForwardResult> Forward(const ForwardRequest& request) const;

  // Logits of chosen rows, softcapped. rows: [..., d_model], values of
  // unembed.hook_in in the model's dtype on its device -> [..., d_vocab].
  absl::StatusOr<at::Tensor> Unembed(const at::Tensor& rows) const;

  const ModelSource& source() const { return *source_; }
  const ModelConfig& config() const { return source_->config(); }
  const Options& options() const { return options_; }
  // Every copy of a weight that this object holds.
  int64_t resident_bytes() const;
  const Weights& weights() const { return *weights_; }

 private:
  Model() = default;
  std::shared_ptr<const ModelSource> source_;
  Options options_;
  std::unique_ptr<const Weights> weights_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_MODEL_H_
