#ifndef CUPOLA_SERVER_MODEL_ATTENTION_H_
#define CUPOLA_SERVER_MODEL_ATTENTION_H_

#include <cstdint>
#include <map>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/model_config.h"
#include "server/model/pass.h"
#include "server/model/weights.h"

namespace cupola::model {

// Causal self-attention over right-padded rows, which begin at position 0,
// continue kept rows or grow by a token, layer after layer of one pass. Scores
// and patterns are made only where the pass watches them or a softcap needs
// them; else the fused kernel runs. Not thread-safe; everything given outlives
// it.
class Attention {
 public:
  Attention(const ModelConfig& config, const Weights& weights, Pass* pass)
      : config_(config), weights_(weights), pass_(*pass) {}

  // x: ln1's output [batch, positions, d_model] -> what the sublayer writes,
  // before any post norm, [batch, positions, d_model]; undefined where the pass
  // ends inside.
  absl::Status Run(const at::Tensor& x, at::Tensor* out);

 private:
  // [batch, positions, heads, d_head]
  struct Heads {
    at::Tensor q, k, v;
  };
  Heads Project(const at::Tensor& x) const;
  absl::Status PrepareWatched(Heads* heads);
  void Prepare(Heads* heads) const;
  absl::Status Scores(const Heads& heads, at::Tensor* z);
  at::Tensor Fused(const Heads& heads);
  at::Tensor Rotate(const at::Tensor& x) const;
  absl::Status Result(const at::Tensor& z, at::Tensor* out);

  const AttentionLayer& layer() const;
  const Block& block() const;
  const RotaryTable& rotary() const;
  // [positions, positions], true where a query (row) sees a key (column).
  const at::Tensor& Visible(int64_t positions, at::Device device);

  const ModelConfig& config_;
  const Weights& weights_;
  Pass& pass_;
  std::map<int64_t, at::Tensor> visible_;  // by window
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_ATTENTION_H_
