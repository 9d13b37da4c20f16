#ifndef CUPOLA_SERVER_MODEL_PASS_H_
#define CUPOLA_SERVER_MODEL_PASS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/hook_point.h"
#include "server/model/model.h"

namespace cupola::model {

// One forward pass seen from its hook points: what it must still compute, and
// what happens when a hook point's value exists. The code that computes asks
// Needs() before each step and calls Visit() after it. Not thread-safe; request
// and result outlive the pass.
class Pass {
 public:
  Pass(const ModelConfig& config, const ForwardRequest& request,
       ForwardResult* result);

  // The rows' absolute positions in a pass that continues kept rows, int64
  // [batch, positions] on the device; else undefined.
  const at::Tensor& positions() const { return positions_; }
  void set_positions(at::Tensor positions) {
    positions_ = std::move(positions);
  }
  // Set where the rows continue kept ones.
  const Continuation* continuation() const {
    return request_.continuation.kept ? &request_.continuation : nullptr;
  }

  // Set where the rows grow by one token.
  GrowingState* growing() const { return request_.growing; }

  // Where the pass keeps: the residual entering `layer`; the current layer's
  // keys and values, [batch, positions, n_kv_heads, d_head].
  void KeepResidual(int layer, const at::Tensor& residual);
  void KeepHeads(const at::Tensor& keys, const at::Tensor& values);

  // Between the blocks' points (0 to n_layers - 1) and those outside (-1).
  void EnterLayer(int layer) { layer_ = layer; }
  int layer() const { return layer_; }

  // Whether the pass has to get as far as `kind` of the current layer.
  bool Needs(HookKind kind) const {
    return ForwardOrder(Point(kind)) <= last_order_;
  }
  // Whether the point of the current layer is captured or edited.
  bool Watches(HookKind kind) const {
    return ((captures_[layer_ + 1] | edits_[layer_ + 1]) & Bit(kind)) != 0;
  }
  bool Edits(HookKind kind) const {
    return (edits_[layer_ + 1] & Bit(kind)) != 0;
  }
  // Watches or Edits any point from `first` to `last`.
  bool WatchesAny(HookKind first, HookKind last) const;
  bool EditsAny(HookKind first, HookKind last) const;

  // Lets the edit change `*value` (a copy of it: what else shares its memory
  // stays), then captures it. An edit that leaves another shape, dtype or
  // device is INVALID_ARGUMENT.
  absl::Status Visit(HookKind kind, at::Tensor* value);

 private:
  static uint64_t Bit(HookKind kind) {
    return uint64_t{1} << static_cast<int>(kind);
  }
  static uint64_t Bits(HookKind first, HookKind last) {
    return (Bit(last) << 1) - Bit(first);
  }
  HookPoint Point(HookKind kind) const;
  absl::Status Edit(const HookPoint& point, at::Tensor* value);

  const ForwardRequest& request_;
  ForwardResult* const result_;
  at::Tensor positions_;
  int layer_ = -1;
  int64_t last_order_ = -1;
  // A bit per kind, of the points outside the blocks and then of each layer.
  std::vector<uint64_t> captures_, edits_;
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_PASS_H_
