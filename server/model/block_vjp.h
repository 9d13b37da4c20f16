#ifndef CUPOLA_SERVER_MODEL_BLOCK_VJP_H_
#define CUPOLA_SERVER_MODEL_BLOCK_VJP_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/attention_vjp.h"
#include "server/model/hook_point.h"
#include "server/model/model_config.h"
#include "server/model/weights.h"

namespace cupola::model {

// A way back through the forward pass: vector-Jacobian products from one hook
// point to an earlier one (or the same), of the true derivative, or with
// attention patterns and norm scales `frozen` at the clean pass's values. What
// moves is the tensor at `to` alone: a residual that was read before it stays.
struct BackwardSpan {
  HookPoint from, to;
  bool frozen = false;
};

// The points a span may have at its ends: residuals, and what lies between them
// with one vector for every position. The names of a model's, for an error.
bool SpanAccepts(HookKind kind);
std::string SpanKinds(const ModelConfig& config);

// What the way back through one block reads of the clean pass.
std::set<HookPoint> BlockCaptures(const BackwardSpan& span, int layer,
                                  const ModelConfig& config);

// A block's matrices for products with their transposes: float32 [out, in],
// unpacked, to be dropped soon.
struct BlockMatrices {
  at::Tensor qkv, attention_out, mlp_in, mlp_out;

  static BlockMatrices Of(const Block& block);
  static int64_t Bytes(const ModelConfig& config);
};

// Cotangents of the values at some of a prompt's positions.
struct Cotangents {
  // float32 [rows, positions, width], heads flattened; undefined: all zero.
  at::Tensor values;
  std::vector<int64_t> positions;  // ascending

  // The same at other positions: zero where there were none, and those left
  // out that are not named.
  Cotangents At(const std::vector<int64_t>& others) const;
};

// One block, ready to be gone through backwards. All that is given outlives it.
class BlockVjp {
 public:
  // `inside`: BlockCaptures of the layer, [batch, longest, ...] each.
  BlockVjp(const ModelConfig& config, const Weights& weights,
           const BackwardSpan& span, int layer, const BlockMatrices& matrices,
           const std::map<HookPoint, at::Tensor>& inside)
      : config_(config),
        weights_(weights),
        span_(span),
        layer_(layer),
        matrices_(matrices),
        inside_(inside) {}

  // Of batch row `row`: cotangents of the residual leaving the block, or, in
  // the layer of span.from, of that point, to those of the residual entering
  // it, or, in the layer of span.to, of that point. Attention takes them on to
  // the positions `reached`, ascending; `own`: each stays at its own position,
  // and every position is a derivative of its own. Exceptions of LibTorch pass
  // through.
  Cotangents Run(int64_t row, const Cotangents& cotangents,
                 const std::vector<int64_t>& reached, bool own) const;

 private:
  class Walk;

  const ModelConfig& config_;
  const Weights& weights_;
  const BackwardSpan& span_;
  const int layer_;
  const BlockMatrices& matrices_;
  const std::map<HookPoint, at::Tensor>& inside_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_BLOCK_VJP_H_
