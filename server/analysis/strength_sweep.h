#ifndef CUPOLA_SERVER_ANALYSIS_STRENGTH_SWEEP_H_
#define CUPOLA_SERVER_ANALYSIS_STRENGTH_SWEEP_H_

#include <cstdint>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/analysis/bridge_source.h"
#include "server/analysis/latent_screen.h"
#include "server/analysis/pair_samples.h"

namespace cupola::analysis {

struct SweepOptions {
  // The strengths; empty: `points` from 0 to max(5, strength + 1), evenly.
  std::vector<float> grid;
  int64_t points = 100;
  SampleDraw draw;
  double tolerance = 1e-2;
  bool published = false;  // see ClassifyCurves
  bool curves = false;     // also the curves themselves

  int64_t length() const {
    return grid.empty() ? points : static_cast<int64_t>(grid.size());
  }
};

// An output latent as a function of an input latent's strength t: its
// activation on encode_out(mlp(x - strength W_dec[in] + t W_dec[in])), the
// published sweep of Jacobian SAEs. Samples as in pair_samples.h.
//
// Record, a row per sample: token INT32 (the sequence's row), in_latent INT32,
// out_latent INT32, strength FLOAT32 (the input latent's own), last FLOAT32
// (the grid's end), kind INT32 (CurveKind), slope, intercept, zero_first,
// zero_last FLOAT32; curves FLOAT32 [samples, points], else empty ([0]); and
// one ScreenCounts.
class SweepAnalysis : public Analysis {
 public:
  SweepAnalysis(BridgeSource bridge, SweepOptions options, bool inputs);
  static storage::Digest Identity(const storage::Digest& bridge,
                                  const SweepOptions& options);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  absl::StatusOr<at::Tensor> Curves(const Pass& pass, const MlpBridge& bridge,
                                    const PairSamples& samples,
                                    const at::Tensor& read, const at::Tensor& x,
                                    const at::Tensor& strengths,
                                    const at::Tensor& grid,
                                    ScreenCounts* counts) const;
  std::vector<storage::Array> RecordOf(const PairSamples& samples,
                                       const at::Tensor& strengths,
                                       const at::Tensor& grid,
                                       const at::Tensor& curves) const;

  const BridgeSource bridge_;
  const SweepOptions options_;
  const bool inputs_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_STRENGTH_SWEEP_H_
