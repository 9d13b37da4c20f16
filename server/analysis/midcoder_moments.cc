#include "server/analysis/midcoder_moments.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::analysis {
namespace {

at::Tensor SumOf(const MidcoderStatistics& statistics, const char* name) {
  return *statistics.Sum(name);
}

// Counts that may be divided by.
at::Tensor Divisor(const at::Tensor& counts) { return counts.clamp_min(1); }

at::Tensor Host(const at::Tensor& tensor) {
  return tensor.to(at::kCPU, at::kDouble);
}

absl::Status CheckShape(const char* name, const at::Tensor& tensor,
                        const std::vector<int64_t>& shape) {
  if (tensor.sizes().vec() == shape) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is [", absl::StrJoin(tensor.sizes(), ", "),
                   "]; accepted: [", absl::StrJoin(shape, ", "), "]"));
}

}  // namespace

at::Tensor MeanGatedActivation(const MidcoderStatistics& statistics) {
  return SumOf(statistics, "act_gate_sum") /
         Divisor(SumOf(statistics, "act_counts")).unsqueeze(1);
}

absl::StatusOr<PredictedDecoders> PredictDecoders(
    const MidcoderStatistics& statistics, const at::Tensor& w_mid,
    const at::Tensor& w_out, const at::Tensor& w_dec) {
  using Result = absl::StatusOr<PredictedDecoders>;
  const auto [f, n, d] = statistics.sizes();
  RETURN_IF_ERROR(CheckShape("W_mid", w_mid, {f, n}));
  RETURN_IF_ERROR(CheckShape("W_out", w_out, {n, d}));
  RETURN_IF_ERROR(CheckShape("W_dec", w_dec, {f, d}));
  return model::CatchTorch("predicting decoders", [&]() -> Result {
    PredictedDecoders decoders;
    decoders.rows =
        (MeanGatedActivation(statistics) * Host(w_mid)).mm(Host(w_out));
    const at::Tensor real = Host(w_dec);
    const at::Tensor norms = decoders.rows.norm(2, 1) * real.norm(2, 1);
    decoders.cosines =
        at::where(norms > 0, (decoders.rows * real).sum(1) / norms,
                  at::zeros_like(norms));
    return decoders;
  });
}

at::Tensor Frequencies(const MidcoderStatistics& statistics) {
  return SumOf(statistics, "act_counts") / Divisor(SumOf(statistics, "counts"));
}

at::Tensor PairProbabilities(const MidcoderStatistics& statistics) {
  return SumOf(statistics, "act_cov_counts") /
         Divisor(SumOf(statistics, "counts"));
}

at::Tensor PairCorrelations(const MidcoderStatistics& statistics,
                            PairNormalization normalization) {
  const at::Tensor p = Frequencies(statistics);
  const at::Tensor variance = p * (1 - p);
  const at::Tensor under = at::outer(
      variance, normalization == PairNormalization::kUpstream ? p : variance);
  const at::Tensor above = PairProbabilities(statistics) - at::outer(p, p);
  return at::where(under > 0, above / under.sqrt(), at::zeros_like(above));
}

absl::StatusOr<NoiseEstimate> EstimateNoise(
    const MidcoderStatistics& statistics, const at::Tensor& w_mid,
    const at::Tensor& b_mid) {
  using Result = absl::StatusOr<NoiseEstimate>;
  const auto [f, n, d] = statistics.sizes();
  RETURN_IF_ERROR(CheckShape("W_mid", w_mid, {f, n}));
  RETURN_IF_ERROR(CheckShape("b_mid", b_mid, {n}));
  return model::CatchTorch("estimating noise", [&]() -> Result {
    const at::Tensor active = Divisor(SumOf(statistics, "act_counts"));
    const at::Tensor tokens = Divisor(SumOf(statistics, "counts"));
    const at::Tensor weights = Host(w_mid);
    NoiseEstimate noise;
    noise.act_mean = SumOf(statistics, "act_sum") / active;
    noise.act_var =
        SumOf(statistics, "act_sq_sum") / active - noise.act_mean.square();
    noise.mid_mean = SumOf(statistics, "pre_relu_sum") / tokens;
    noise.mid_cov = SumOf(statistics, "pre_relu_cov_sum") / tokens -
                    at::outer(noise.mid_mean, noise.mid_mean);
    noise.mean =
        Host(b_mid) + noise.mid_mean - noise.act_mean.unsqueeze(1) * weights;
    noise.variance = noise.mid_cov.diagonal() -
                     noise.act_var.unsqueeze(1) * weights.square();
    return noise;
  });
}

absl::StatusOr<Spectrum> SpectrumOf(const at::Tensor& gram, int64_t top) {
  using Result = absl::StatusOr<Spectrum>;
  const int64_t n = gram.dim() == 2 ? gram.size(0) : -1;
  RETURN_IF_ERROR(CheckShape("gram", gram, {n, n}));
  if (top < 0 || top > n) {
    return absl::InvalidArgumentError(
        absl::StrCat("top is ", top, "; accepted: 0 to ", n));
  }
  return model::CatchTorch("taking a spectrum", [&]() -> Result {
    const at::Tensor host = Host(gram);
    if (!at::isfinite(host).all().item<bool>()) {
      return absl::InvalidArgumentError(
          "gram has values that are not finite; accepted: finite ones");
    }
    const auto [values, vectors] = at::linalg_eigh(host);
    const at::Tensor first = vectors.flip(1).narrow(1, 0, top).t().contiguous();
    if (top == 0) return Spectrum{values.flip(0), first};
    const at::Tensor largest = first.abs().argmax(1, /*keepdim=*/true);
    return Spectrum{values.flip(0), first * first.gather(1, largest).sign()};
  });
}

}  // namespace cupola::analysis
