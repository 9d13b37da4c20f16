#ifndef CUPOLA_SERVER_MODEL_HOOK_POINT_H_
#define CUPOLA_SERVER_MODEL_HOOK_POINT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/model_config.h"

namespace cupola::model {

// The named tensors of a forward pass, in the order in which a block makes
// them. Names and meanings are TransformerLens' (HookedTransformer), with
// `ln{1,2}.hook_normalized` BEFORE the gain; the value after gain and bias,
// which TransformerLens' bridge calls hook_out, is a point of its own.
enum class HookKind {
  kEmbed,          // hook_embed
  kPosEmbed,       // hook_pos_embed (learned positions only)
  kResidPre,       // blocks.L.hook_resid_pre
  kLn1Scale,       // blocks.L.ln1.hook_scale              [1]
  kLn1Normalized,  // blocks.L.ln1.hook_normalized
  kLn1Out,         // blocks.L.ln1.hook_out
  kQ,
  kK,
  kV,  // blocks.L.attn.hook_q/k/v: after bias, before qk-norm, rotary
  kQNormScale,
  kQNormNormalized,  // blocks.L.attn.q_norm.hook_scale/_normalized
  kKNormScale,
  kKNormNormalized,  // (Qwen3, Gemma-3)
  kRotQ,
  kRotK,        // blocks.L.attn.hook_rot_q/k
  kAttnScores,  // blocks.L.attn.hook_attn_scores: scaled, softcapped, masked
  kPattern,     // blocks.L.attn.hook_pattern
  kZ,           // blocks.L.attn.hook_z                 [n_heads, d_head]
  kResult,      // blocks.L.attn.hook_result            [n_heads, d_model]
  kLn1PostScale,
  kLn1PostNormalized,  // blocks.L.ln1_post.* (Gemma-2/3)
  kAttnOut,            // blocks.L.hook_attn_out: what is added to the residual
  kResidMid,           // blocks.L.hook_resid_mid (sequential blocks only)
  kMlpIn,              // blocks.L.hook_mlp_in: the residual entering ln2
  kLn2Scale,
  kLn2Normalized,  // blocks.L.ln2.hook_normalized
  kLn2Out,         // blocks.L.mlp.hook_in (alias blocks.L.ln2.hook_out)
  kMlpPre,         // blocks.L.mlp.hook_pre: x W_in + b_in; gated: x W_gate
  kMlpPreLinear,   // blocks.L.mlp.hook_pre_linear (gated only): x W_in
  kMlpPost,        // blocks.L.mlp.hook_post: the input of W_out
  kLn2PostScale,
  kLn2PostNormalized,  // blocks.L.ln2_post.* (Gemma-2/3)
  kMlpOut,             // blocks.L.hook_mlp_out: what is added to the residual
  kResidPost,          // blocks.L.hook_resid_post
  kFinalScale,         // ln_final.hook_scale
  kFinalNormalized,    // ln_final.hook_normalized
  kFinalOut,           // unembed.hook_in (alias ln_final.hook_out)
  kLogits,             // unembed.hook_out                     [d_vocab]
};

struct HookPoint {
  HookKind kind = HookKind::kResidPre;
  int layer = -1;  // -1: outside the blocks
  auto operator<=>(const HookPoint&) const = default;
};

// Reads a full name or a TransformerLens short form ("resid_post5", "k6",
// "scale4ln1", "normalized3ln2", "embed"). NOT_FOUND when the model lacks it,
// with what it has at that layer; INVALID_ARGUMENT for a layer outside the
// model.
absl::StatusOr<HookPoint> ParseHookPoint(absl::string_view name,
                                         const ModelConfig& config);

// The canonical full name.
std::string HookName(const HookPoint& hook);

// Shape per position: [d_model], [n_heads, d_head], [d_mlp], [1], ...; scores
// and patterns are [n_heads, -1] per query position, -1 standing for the keys.
std::vector<int64_t> HookShape(const HookPoint& hook,
                               const ModelConfig& config);

// Every hook point of the model, in forward order.
std::vector<HookPoint> AllHookPoints(const ModelConfig& config);

// A total order of the forward pass: a pass that has produced point p has
// produced everything with a smaller order in time.
int64_t ForwardOrder(const HookPoint& hook);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_HOOK_POINT_H_
