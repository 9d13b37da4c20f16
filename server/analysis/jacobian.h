#ifndef CUPOLA_SERVER_ANALYSIS_JACOBIAN_H_
#define CUPOLA_SERVER_ANALYSIS_JACOBIAN_H_

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/bridge_source.h"
#include "server/analysis/sandwich.h"

namespace cupola::analysis {

struct JacobianOptions {
  MlpInput mlp_input = MlpInput::kOriginal;
  LatentMask mask = LatentMask::kSlots;
  // Against all input latents instead of the active ones: entries with |J| >=
  // min_abs (0: those that are not 0), of each row the `top` of largest |J| (0:
  // all; the lowest index wins ties).
  bool all_inputs = false;
  float min_abs = 0;
  int64_t top = 0;
  bool block = true;  // false: the latents and the MLP alone
  bool second_order = false;
  bool mlp_output = false;
  bool gradients = false;
};

// How one feature moves another: the derivative of an output dictionary's
// active latents by an input dictionary's, token by token, through the MLP
// between them (sandwich.h has the formulas). Agrees with
// torch.autograd.functional.jacobian of the same map.
//
// Record, with n tokens and k_in, k_out the most active latents of any of them:
//   in_latents INT32 [n, k_in] (-1: padding), in_acts FLOAT32 [n, k_in],
//   out_latents INT32 [n, k_out], out_acts FLOAT32 [n, k_out],
//   values FLOAT32 [n, k_out, k_in], where |J| < min_abs zero ([0] without
//   `block`);
//   indptr INT64 [n * k_out + 1] and indices UINT32 [entries], which are empty
//   ([0]) unless all_inputs; then a row's values are [entries] in CSR;
//   second_order FLOAT32 [n, k_out, k_in], mlp_output FLOAT32 [n, d_model],
//   gradients FLOAT32 [n, d_mlp] or, gated, [n, 2 d_mlp] (d hidden / d gate
//   pre-activation, then / d linear one), each empty ([0]) unless asked for.
class JacobianAnalysis : public Analysis {
 public:
  // Numbers of a record's arrays.
  enum Field {
    kInLatents,
    kInActs,
    kOutLatents,
    kOutActs,
    kValues,
    kIndptr,
    kIndices,
    kSecondOrder,
    kMlpOutput,
    kGradients,
    kFields
  };

  // `max_bytes`: of a record; RESOURCE_EXHAUSTED beyond, with what would make
  // it smaller. `inputs`: the sequences are rows at the bridge's x.
  JacobianAnalysis(BridgeSource bridge, JacobianOptions options, bool inputs,
                   int64_t max_bytes);
  static storage::Digest Identity(const storage::Digest& bridge,
                                  const JacobianOptions& options);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  absl::StatusOr<std::vector<storage::Array>> RecordOf(
      const Pass& pass, const MlpBridge& bridge,
      const Sandwich& sandwich) const;

  const BridgeSource bridge_;
  const JacobianOptions options_;
  const bool inputs_;
  const int64_t max_bytes_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_JACOBIAN_H_
