#ifndef CUPOLA_SERVER_MODEL_ATTENTION_VJP_H_
#define CUPOLA_SERVER_MODEL_ATTENTION_VJP_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "server/model/model_config.h"

namespace cupola::model {

// One prompt's queries, keys and values as the scores see them, after qk-norm
// and rotary: float32 [positions, n_heads or n_kv_heads, d_head].
struct CleanHeads {
  at::Tensor q, k, v;
};

// Cotangents of the same, heads flattened: q [rows, queries, n_heads d_head], k
// and v [rows, reached, n_kv_heads d_head]. q and k are undefined where
// patterns are frozen.
struct HeadCotangents {
  at::Tensor q, k, v;
};

// Which of a prompt's positions take part.
struct AttentionPlaces {
  std::vector<int64_t> queries;  // where the cotangents stand
  // Keys that cotangents are wanted of. `own`: of each query only that at its
  // own position, `reached` being the queries; every row then holds as many
  // independent derivatives as there are queries.
  std::vector<int64_t> reached;
  bool own = false;
};

// Back through one layer's attention, from cotangents of z (attn.hook_z),
// [rows, queries, n_heads d_head], to those of its queries, keys and values.
// With S the scaled, softcapped and masked scores, P = softmax(S), z = P V:
//   dV = P^T dz,  dP = dz V^T,  dS = P (dP - rowsum(P dP)),
//   times 1 - (S / cap)^2 under a softcap; dQ = dS K / scale, dK = dS^T Q /
//   scale
// Patterns are computed anew, a few queries at a time, so that what is held
// beside the results is bounded (kAttentionVjpValues, or one query's). With
// `frozen` patterns only dV is made. Exceptions of LibTorch pass through.
HeadCotangents AttentionVjp(const ModelConfig& config, int layer,
                            const CleanHeads& clean, const at::Tensor& z,
                            const AttentionPlaces& places, bool frozen);

// float32 values that the scores' cotangents of some queries may take.
inline constexpr int64_t kAttentionVjpValues = int64_t{1} << 22;

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_ATTENTION_VJP_H_
