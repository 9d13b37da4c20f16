#ifndef CUPOLA_SERVER_ANALYSIS_DIRECTION_ABLATION_H_
#define CUPOLA_SERVER_ANALYSIS_DIRECTION_ABLATION_H_

#include <cstdint>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/bridge_source.h"
#include "server/analysis/latent_screen.h"
#include "server/analysis/pair_samples.h"
#include "server/analysis/sandwich.h"

namespace cupola::analysis {

// What an ablation does to its output latent beside what the Jacobian foretold.
enum class AblationClass {
  kOnLine = 0,   // |delta J + difference| < on_line
  kCluster = 1,  // else J < cluster_jacobian and difference < cluster_drop
  kOutlier = 2,
};

struct DirectionAblationOptions {
  // What is subtracted: delta times the input latent's decoder row. kUnit: 1
  // (the published definition); kStrength: the latent's own activation.
  enum class Step { kUnit, kStrength, kGiven };
  Step step = Step::kUnit;
  SampleDraw draw;
  // The published tolerances.
  float on_line = 0.1f, cluster_jacobian = 0.05f, cluster_drop = -0.5f;
};

// Subtracts an input latent's decoder direction at the MLP's original input and
// reads an output latent: the published ablation of Jacobian SAEs. Samples as
// in pair_samples.h, with a delta each under kGiven.
//
// Record, a row per sample: token INT32 (the sequence's row), in_latent INT32,
// out_latent INT32, delta, before, after (the output latent's activation) and
// jacobian FLOAT32, kind INT32 (AblationClass); difference is after - before;
// and one ScreenCounts.
class DirectionAblationAnalysis : public Analysis {
 public:
  DirectionAblationAnalysis(BridgeSource bridge,
                            DirectionAblationOptions options, bool inputs);
  static storage::Digest Identity(const storage::Digest& bridge,
                                  const DirectionAblationOptions& options);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  absl::StatusOr<std::vector<storage::Array>> RecordOf(
      const Pass& pass, const MlpBridge& bridge, const Sandwich& sandwich,
      const at::Tensor& read, const at::Tensor& x,
      const Sequence& sequence) const;
  struct Moved {
    at::Tensor before, after, jacobian;  // float32 [samples]
  };
  absl::StatusOr<Moved> Move(const Pass& pass, const MlpBridge& bridge,
                             const Sandwich& sandwich, const at::Tensor& read,
                             const at::Tensor& x, const PairSamples& samples,
                             ScreenCounts* counts) const;

  const BridgeSource bridge_;
  const DirectionAblationOptions options_;
  const bool inputs_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_DIRECTION_ABLATION_H_
