#include "server/analysis/logit_weights.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "ATen/Parallel.h"
#include "server/analysis/latent_vectors.h"
#include "server/analysis/option_checks.h"
#include "server/analysis/residual_writes.h"
#include "server/dictionary/selection.h"
#include "server/model/logit_directions.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::analysis {
namespace {

// Latents whose logits over the whole vocabulary are held at a time.
constexpr int64_t kChunkLatents = 64;
constexpr int64_t kMaxBins = 10'000;

// The k largest of sign * row, the largest first, and what they are in `row`.
void PutLargest(const float* row, float sign, int64_t n, int64_t k,
                dictionary::SelectionScratch* scratch, int32_t* tokens,
                float* values) {
  if (k == 0) return;
  std::vector<float> turned;
  const float* of = row;
  if (sign < 0) {
    turned.resize(n);
    std::transform(row, row + n, turned.begin(), std::negate<>());
    of = turned.data();
  }
  std::vector<int32_t> chosen;
  dictionary::SelectTopK(of, n, k, -std::numeric_limits<float>::infinity(),
                         scratch, &chosen);
  std::stable_sort(chosen.begin(), chosen.end(),
                   [of](int32_t a, int32_t b) { return of[a] > of[b]; });
  for (size_t i = 0; i < chosen.size(); ++i) {
    tokens[i] = chosen[i];
    values[i] = row[chosen[i]];
  }
}

void PutHistogram(const float* row, int64_t n, int64_t bins, float* ends,
                  int64_t* histogram) {
  const auto [low, high] = std::minmax_element(row, row + n);
  ends[0] = *low;
  ends[1] = *high;
  const double span = double{*high} - double{*low};
  const double per_unit =
      span > 0 && std::isfinite(span) ? static_cast<double>(bins) / span : 0;
  for (int64_t i = 0; i < n; ++i) {
    const double bin = (double{row[i]} - double{*low}) * per_unit;
    if (!(bin >= 0)) continue;  // a NaN
    ++histogram[std::min(static_cast<int64_t>(bin), bins - 1)];
  }
}

}  // namespace

absl::Status CheckOptions(const LogitWeightsOptions& options, int64_t d_vocab) {
  RETURN_IF_ERROR(CheckNumber("top", options.top, 0, d_vocab));
  RETURN_IF_ERROR(CheckNumber("bottom", options.bottom, 0, d_vocab));
  return CheckNumber("bins", options.bins, 1, kMaxBins);
}

absl::StatusOr<LogitWeights> SummarizeLogits(
    const at::Tensor& logits, const LogitWeightsOptions& options) {
  using Result = absl::StatusOr<LogitWeights>;
  const int64_t latents = logits.size(0), vocabulary = logits.size(1);
  RETURN_IF_ERROR(CheckOptions(options, vocabulary));
  return model::CatchTorch("summing up logits", [&]() -> Result {
    const int64_t both = options.top + options.bottom;
    // -1 where a NaN leaves nothing to name.
    LogitWeights weights{at::full({latents, both}, -1, at::kInt),
                         at::zeros({latents, both}, at::kFloat),
                         at::zeros({latents, options.bins}, at::kLong),
                         at::zeros({latents, 2}, at::kFloat)};
    const float* const all = logits.const_data_ptr<float>();
    int32_t* const tokens = weights.tokens.mutable_data_ptr<int32_t>();
    float* const values = weights.values.mutable_data_ptr<float>();
    int64_t* const histogram = weights.histogram.mutable_data_ptr<int64_t>();
    float* const ends = weights.ends.mutable_data_ptr<float>();
    at::parallel_for(0, latents, 1, [&](int64_t begin, int64_t end) {
      dictionary::SelectionScratch scratch;
      for (int64_t i = begin; i < end; ++i) {
        const float* const row = all + i * vocabulary;
        PutLargest(row, 1, vocabulary, options.top, &scratch, tokens + i * both,
                   values + i * both);
        PutLargest(row, -1, vocabulary, options.bottom, &scratch,
                   tokens + i * both + options.top,
                   values + i * both + options.top);
        PutHistogram(row, vocabulary, options.bins, ends + 2 * i,
                     histogram + i * options.bins);
      }
    });
    return weights;
  });
}

absl::StatusOr<LogitWeights> LogitWeightsOf(
    const dictionary::Dictionary& dictionary, const model::HookPoint& hook_out,
    const model::Model& model, const std::vector<int64_t>& latents,
    const LogitWeightsOptions& options,
    const std::function<absl::Status()>& poll) {
  using Result = absl::StatusOr<LogitWeights>;
  return model::CatchTorch("taking logit weights", [&]() -> Result {
    std::vector<LogitWeights> parts;
    for (auto begin = latents.begin(); begin != latents.end();) {
      if (poll) RETURN_IF_ERROR(poll());
      const auto end =
          begin + std::min<int64_t>(kChunkLatents, latents.end() - begin);
      const std::vector<int64_t> some(begin, end);
      begin = end;
      const at::Tensor rows =
          ToResidual(model, hook_out,
                     LatentVectors(dictionary, LatentSide::kDecoder, some));
      const at::Tensor logits =
          model::ProjectToLogits(model, rows, options.gain);
      ASSIGN_OR_RETURN(LogitWeights part,
                       SummarizeLogits(logits.cpu().contiguous(), options));
      parts.push_back(std::move(part));
    }
    const auto joined = [&parts](at::Tensor LogitWeights::*member) {
      std::vector<at::Tensor> rows;
      for (const LogitWeights& part : parts) rows.push_back(part.*member);
      return at::cat(rows);
    };
    return LogitWeights{
        joined(&LogitWeights::tokens), joined(&LogitWeights::values),
        joined(&LogitWeights::histogram), joined(&LogitWeights::ends)};
  });
}

}  // namespace cupola::analysis
