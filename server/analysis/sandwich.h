#ifndef CUPOLA_SERVER_ANALYSIS_SANDWICH_H_
#define CUPOLA_SERVER_ANALYSIS_SANDWICH_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/active_latents.h"
#include "server/analysis/mlp_bridge.h"
#include "server/analysis/token_map.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// Where an MLP is evaluated: at the activation itself, or at what the input
// dictionary makes of it.
enum class MlpInput { kOriginal, kReconstruction };

// The map  a -> encode_out(mlp(c + a W_dec))  around the clean activations a of
// some tokens, ready to be differentiated: c = x - a W_dec at the original
// activation x, c = b_dec at the reconstruction. A dictionary's own run-time
// normalisation is part of it: the decoder's with the token's statistics held
// (as SAELens decodes), the encoder's with its derivative.
struct Sandwich {
  ActiveLatents in, out;
  MlpBridge::Point point;
  at::Tensor decode_scale;  // [n, 1] of the decoder's rows; undefined: 1
  std::optional<Normalisation> encode_norm;  // of the output dictionary
  TokenMap before;  // of decoder rows to the MLP's input
  TokenMap after;   // of the MLP's output to the encoder's input

  // Of some of the tokens: int64 [m].
  Sandwich Select(const at::Tensor& tokens) const;
};

// What `in`'s decoder multiplies its rows with at a token, [n, 1];
// undefined: 1. read: float32 [n, d_in] at its hook point.
at::Tensor DecodeScale(const dictionary::Dictionary& in,
                       const at::Tensor& read);

// read [n, d_in] at place().read, x [n, d] at place().x (undefined under
// kReconstruction); `model` as for MlpBridge::Evaluate. Polled between steps.
// Errors as Dictionary::Encode's. Exceptions of LibTorch pass through.
absl::StatusOr<Sandwich> MakeSandwich(
    const MlpBridge& bridge, const model::Model* model,
    const dictionary::Dictionary& in, const dictionary::Dictionary& out,
    const at::Tensor& read, const at::Tensor& x, MlpInput mlp_input,
    LatentMask mask, const std::function<absl::Status()>& poll);

// The functions below are the Jacobian of a sandwich. Entries of padding are 0.

// J[i, j] = d out_i / d in_j, over the tokens' active latents: [n, k_out,
// k_in]. With u_i = W_out W_enc_out[:, i] and z_j = W_dec[j] W_in:
//   plain  sum_m u_i[m] act'(p_m) z_j[m]
//   gated  sum_m u_i[m] (act'(p_m) l_m zg_j[m] + act(p_m) zl_j[m])
// where p are the pre-activations, of the gate, and l the linear ones.
at::Tensor JacobianBlock(const MlpBridge& bridge, const Sandwich& sandwich);

// The second-order diagonal d^2 out_i / d in_j^2: [n, k_out, k_in].
at::Tensor SecondOrderBlock(const MlpBridge& bridge, const Sandwich& sandwich);

// The same rows against all input latents, active or not: [n, k_out, d_sae].
at::Tensor JacobianRows(const MlpBridge& bridge, const Sandwich& sandwich);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_SANDWICH_H_
