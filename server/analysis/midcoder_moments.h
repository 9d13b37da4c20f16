#ifndef CUPOLA_SERVER_ANALYSIS_MIDCODER_MOMENTS_H_
#define CUPOLA_SERVER_ANALYSIS_MIDCODER_MOMENTS_H_

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/midcoder_statistics.h"

// What source notebook D derives from its sums. f features are registered of a
// dictionary with the midcoder W_mid [latents, n], b_mid [n]. Everything is
// float64 on the host. Where a sum over no tokens would be divided by their
// number, 0 stands instead.

namespace cupola::analysis {

// E[a gate | a > 0] = act_gate_sum / act_counts: [f, n].
at::Tensor MeanGatedActivation(const MidcoderStatistics& statistics);

// The decoder that a feature would have if the gates followed from it alone:
//   (MeanGatedActivation_f * W_mid[f]) W_out: [f, d],
// and its cosine with the real one: [f], 0 for a row of zeros.
struct PredictedDecoders {
  at::Tensor rows;     // [f, d]
  at::Tensor cosines;  // [f]
};
// w_mid: [f, n], of the registered features; w_out: [n, d]; w_dec: [f, d]; any
// float type and device. INVALID_ARGUMENT: other shapes.
absl::StatusOr<PredictedDecoders> PredictDecoders(
    const MidcoderStatistics& statistics, const at::Tensor& w_mid,
    const at::Tensor& w_out, const at::Tensor& w_dec);

// [f]: act_counts / counts.
at::Tensor Frequencies(const MidcoderStatistics& statistics);
// [f, f]: how often both are active, P = act_cov_counts / counts.
at::Tensor PairProbabilities(const MidcoderStatistics& statistics);
// [f, f]: (P - p p^T) / sqrt(v w^T) with v = p (1 - p); w = p as published,
// where the result is not symmetric, or w = v: the phi coefficient.
enum class PairNormalization { kUpstream, kSymmetric };
at::Tensor PairCorrelations(const MidcoderStatistics& statistics,
                            PairNormalization normalization);

// If what the other features add to a neuron were gaussian noise: its mean and
// variance for each registered feature where that is active,
//   act_mean = act_sum / act_counts, act_var = act_sq_sum / act_counts -
//   act_mean^2, mid_mean = pre_relu_sum / counts, mid_cov = pre_relu_cov_sum /
//   counts - mid_mean mid_mean^T, mid_var its diagonal,
//   mean = b_mid + mid_mean - act_mean W_mid: [f, n]
//   variance = mid_var - act_var W_mid^2: [f, n], which can be below 0.
struct NoiseEstimate {
  at::Tensor act_mean, act_var;  // [f]
  at::Tensor mid_mean;           // [n]
  at::Tensor mid_cov;            // [n, n]
  at::Tensor mean, variance;     // [f, n]
};
// w_mid: [f, n]; b_mid: [n]. INVALID_ARGUMENT: other shapes.
absl::StatusOr<NoiseEstimate> EstimateNoise(
    const MidcoderStatistics& statistics, const at::Tensor& w_mid,
    const at::Tensor& b_mid);

// The eigenvalues of a symmetric matrix (a thresholded Gram matrix: see
// GramQuery), descending, and the `top` first eigenvectors as rows, each with
// its largest entry in absolute value above 0.
struct Spectrum {
  at::Tensor values;   // float64 [n]
  at::Tensor vectors;  // float64 [top, n]
};
// INVALID_ARGUMENT: not square, not finite, top not 0 to n.
absl::StatusOr<Spectrum> SpectrumOf(const at::Tensor& gram, int64_t top);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_MIDCODER_MOMENTS_H_
