#include "server/model/resident_bound.h"

#include <algorithm>

namespace cupola::model {
namespace {

// The largest blocks of oneDNN's weight layouts, and two of our own tiles.
constexpr int64_t kBlock = 64;

int64_t Padded(int64_t n) { return (n + kBlock - 1) / kBlock * kBlock; }

int64_t RotaryBytes(const Rotary& rotary, int64_t n_ctx) {
  // Cosines and sines of half the components, and the frequencies; in float32
  // at the most, at the positions that are kept.
  const int64_t positions = std::min(n_ctx, kReadyPositions);
  return rotary.rotary_dim * int64_t{sizeof(float)} * (2 * positions + 1);
}

}  // namespace

int64_t LinearBytesBound(int64_t in, int64_t out, bool has_bias,
                         at::ScalarType dtype, at::Device device) {
  const int64_t width = static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t values = device.is_cpu() ? Padded(in) * Padded(out) : in * out;
  return width * (values + (has_bias ? out : 0));
}

int64_t ModelBytesBound(const ModelConfig& config, at::ScalarType dtype,
                        at::Device device) {
  const int64_t width = static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t d = config.d_model;
  const int64_t heads = config.n_heads * config.d_head;
  const int64_t kv_heads = config.n_kv_heads * config.d_head;
  const int64_t mlp_in = (config.gated_mlp ? 2 : 1) * config.d_mlp;
  // Folding gives matrices a bias that the file does not have.
  const auto linear = [&](int64_t in, int64_t out) {
    return LinearBytesBound(in, out, /*has_bias=*/true, dtype, device);
  };
  // ln1, ln2 and their post norms, each with a bias, and the heads' own.
  const int64_t norms = width * (8 * d + 4 * config.d_head);
  const int64_t block = norms + linear(d, heads + 2 * kv_heads) +
                        linear(heads, d) + linear(d, mlp_in) +
                        linear(config.d_mlp, d);
  int64_t bytes = config.n_layers * block;
  bytes += width * d * config.d_vocab;
  if (config.positions == PositionKind::kLearned) {
    bytes += width * d * config.n_ctx;
  }
  bytes += 2 * width * d;  // the final norm
  bytes += config.tied_unembedding ? 2 * d * int64_t{sizeof(float)}
                                   : linear(d, config.d_vocab);
  return bytes + RotaryBytes(config.rotary, config.n_ctx) +
         RotaryBytes(config.local_rotary, config.n_ctx);
}

}  // namespace cupola::model
