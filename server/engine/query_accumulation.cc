#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/accumulate_jacobian.h"
#include "server/engine/to_array.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::JacobianDivisor;
using analysis::JacobianStatistic;
using analysis::JacobianTotals;
using analysis::JacobianTotalsOptions;
using storage::DType;

constexpr size_t kMaxThresholds = 1 << 16;

}  // namespace

absl::StatusOr<JacobianTotalsAnswer> QueryAccumulation(
    const JobWork& work, const JacobianTotalsRequest& request,
    const Limits& limits) {
  const JacobianTotals& totals = TotalsOf(work);
  const JacobianTotalsOptions& options = totals.options();
  if (request.thresholds.size() > kMaxThresholds) {
    return absl::InvalidArgumentError(
        absl::StrCat("thresholds: ", request.thresholds.size(),
                     " of them; accepted: up to ", kMaxThresholds));
  }
  for (double threshold : request.thresholds) {
    if (!(threshold >= 0)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "thresholds: ", threshold, "; accepted: numbers from 0"));
    }
  }
  const auto check = [](const char* field, const std::vector<int64_t>& latents,
                        int64_t below) -> absl::Status {
    for (int64_t latent : latents) {
      if (latent < 0 || latent >= below) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ": ", latent, "; accepted: 0 to ", below - 1));
      }
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(check("rows", request.rows, options.d_out));
  RETURN_IF_ERROR(check("columns", request.columns, options.d_in));
  if (request.top < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("top is ", request.top, "; accepted: at least 0"));
  }
  RETURN_IF_ERROR(CheckAnswerBytes(
      8.0 * (static_cast<double>(request.rows.size()) * options.d_in +
             static_cast<double>(request.columns.size()) * options.d_out) +
          16.0 * static_cast<double>(request.top),
      limits));

  JacobianTotalsAnswer answer;
  answer.tokens = totals.tokens();
  answer.d_out = options.d_out;
  answer.d_in = options.d_in;
  answer.float64 = options.float64;
  answer.bins_end = options.bins_end;
  const JacobianStatistic statistic = request.statistic;
  const JacobianDivisor divisor = request.divisor;
  answer.above = ToVector(
      DType::kInt64, totals.CountAbove(statistic, divisor, request.thresholds));
  std::vector<int32_t> outs, ins;
  std::vector<double> values;
  for (const auto& entry : totals.Top(statistic, divisor, request.top)) {
    outs.push_back(entry.out);
    ins.push_back(entry.in);
    values.push_back(entry.value);
  }
  answer.top_out = ToVector(DType::kInt32, outs);
  answer.top_in = ToVector(DType::kInt32, ins);
  answer.top_values = ToVector(DType::kFloat64, values);
  const auto lines = [](const std::vector<int64_t>& latents, int64_t width,
                        const auto& line) {
    std::vector<double> all;
    for (int64_t latent : latents) {
      const std::vector<double> one = line(static_cast<int32_t>(latent));
      all.insert(all.end(), one.begin(), one.end());
    }
    return ToArray(DType::kFloat64,
                   {static_cast<int64_t>(latents.size()), width}, all);
  };
  answer.rows = lines(request.rows, options.d_in, [&](int32_t latent) {
    return totals.Row(statistic, divisor, latent);
  });
  answer.columns = lines(request.columns, options.d_out, [&](int32_t latent) {
    return totals.Column(statistic, divisor, latent);
  });
  const std::vector<int64_t> none;
  answer.active =
      ToVector(DType::kInt64, request.active ? totals.active() : none);
  answer.histogram =
      ToVector(DType::kInt64, request.histogram ? totals.histogram() : none);
  return answer;
}

}  // namespace cupola::engine
