#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/direction_statistics_job.h"
#include "server/engine/to_array.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::ActiveRow;
using analysis::DirectionStatistics;
using analysis::Example;
using storage::DType;

absl::Status CheckQuery(const DirectionStatistics& totals,
                        const DirectionStatisticsQuery& query,
                        const Limits& limits) {
  for (const auto& [name, value] :
       {std::pair("share_of_max", query.share_of_max),
        std::pair("min_share", query.min_share)}) {
    if (!std::isfinite(value) || value < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " is ", value, "; accepted: a finite number >= 0"));
    }
  }
  if (query.table && query.max_latents < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_latents is ", query.max_latents, "; accepted: at least 1"));
  }
  const int64_t below = totals.options().latents;
  if (static_cast<int64_t>(query.latents.size()) > below) {
    return absl::InvalidArgumentError(
        absl::StrCat("latents: ", query.latents.size(),
                     " of them; accepted: as many as there are, ", below));
  }
  double bytes = 0;
  for (int64_t latent : query.latents) {
    if (latent < 0 || latent >= below) {
      return absl::InvalidArgumentError(
          absl::StrCat("latents: ", latent, "; accepted: 0 to ", below - 1));
    }
    bytes += 20.0 + 16.0 * static_cast<double>(totals.options().top_k) +
             24.0 * static_cast<double>(totals.ActiveRows(latent).size());
  }
  const int64_t d_vocab = totals.prompts().options().d_vocab;
  if (query.boosts < 0 || query.boosts > d_vocab) {
    return absl::InvalidArgumentError(
        d_vocab == 0
            ? absl::StrCat("boosts is ", query.boosts,
                           ", but the job was submitted without boost_rows; "
                           "accepted: 0")
            : absl::StrCat("boosts is ", query.boosts, "; accepted: 0 to ",
                           d_vocab));
  }
  if (std::isnan(query.min_logprob)) {
    return absl::InvalidArgumentError("min_logprob is no number");
  }
  return CheckAnswerBytes(bytes, limits);
}

struct TableRow {
  uint32_t latent = 0;
  analysis::DirectionShare share;
  int64_t ablated = 0;
  double increase = 0, encoded = 0;  // means; NaN where none was ablated
};

void PutTable(const DirectionStatistics& totals, bool ablated,
              const DirectionStatisticsQuery& query,
              DirectionStatisticsAnswer* answer) {
  std::vector<TableRow> rows;
  for (int64_t latent = 0; query.table && latent < totals.options().latents;
       ++latent) {
    const auto share =
        totals.Share(latent, query.share_of_max, query.min_share);
    if (!(share.mean > 0)) continue;
    rows.push_back({static_cast<uint32_t>(latent), share});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.share.mean > b.share.mean;
  });
  if (static_cast<int64_t>(rows.size()) > query.max_latents) {
    rows.resize(query.max_latents);
  }
  for (TableRow& row : rows) {
    for (const ActiveRow& one : totals.ActiveRows(row.latent)) {
      if (std::isnan(one.loss_increase)) continue;
      ++row.ablated;
      row.increase += one.loss_increase;
      row.encoded += one.loss_increase_encoded;
    }
    row.increase /= static_cast<double>(row.ablated);
    row.encoded /= static_cast<double>(row.ablated);
  }
  // Of a job without ablations the means' order stays.
  if (ablated) {
    std::erase_if(rows, [](const TableRow& row) { return row.ablated == 0; });
    std::stable_sort(
        rows.begin(), rows.end(),
        [](const auto& a, const auto& b) { return a.increase > b.increase; });
  }
  std::vector<uint32_t> latents;
  std::vector<double> increase, encoded, mean, share;
  std::vector<int64_t> counts;
  for (const TableRow& row : rows) {
    latents.push_back(row.latent);
    increase.push_back(row.increase);
    encoded.push_back(row.encoded);
    mean.push_back(row.share.mean);
    share.push_back(row.share.share);
    counts.push_back(row.ablated);
  }
  answer->latent = ToVector(DType::kUInt32, latents);
  answer->loss_increase = ToVector(DType::kFloat64, increase);
  answer->loss_increase_encoded = ToVector(DType::kFloat64, encoded);
  answer->mean_activation = ToVector(DType::kFloat64, mean);
  answer->share_active = ToVector(DType::kFloat64, share);
  answer->ablated = ToVector(DType::kInt64, counts);
}

void PutRows(const DirectionStatistics& totals,
             const DirectionStatisticsQuery& query,
             DirectionStatisticsAnswer* answer) {
  const int64_t n = query.latents.size(), top_k = totals.options().top_k;
  std::vector<int64_t> count, top_row(n * top_k, -1), indptr = {0}, row;
  std::vector<int32_t> top_position(n * top_k, -1), position;
  std::vector<float> largest, top_value(n * top_k), value, increase, encoded;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t latent = query.latents[i];
    count.push_back(totals.Count(latent));
    largest.push_back(totals.Largest(latent));
    int64_t at = i * top_k;
    for (const Example& example : totals.Top(latent)) {
      top_row[at] = example.row;
      top_position[at] = example.position;
      top_value[at++] = example.value;
    }
    for (const ActiveRow& one : totals.ActiveRows(latent)) {
      row.push_back(one.row);
      position.push_back(one.position);
      value.push_back(one.activation);
      increase.push_back(one.loss_increase);
      encoded.push_back(one.loss_increase_encoded);
    }
    indptr.push_back(static_cast<int64_t>(row.size()));
  }
  answer->count = ToVector(DType::kInt64, count);
  answer->largest = ToVector(DType::kFloat32, largest);
  answer->top_row = ToArray(DType::kInt64, {n, top_k}, top_row);
  answer->top_position = ToArray(DType::kInt32, {n, top_k}, top_position);
  answer->top_value = ToArray(DType::kFloat32, {n, top_k}, top_value);
  answer->active_indptr = ToVector(DType::kInt64, indptr);
  answer->active_row = ToVector(DType::kInt64, row);
  answer->active_position = ToVector(DType::kInt32, position);
  answer->activation = ToVector(DType::kFloat32, value);
  answer->active_increase = ToVector(DType::kFloat32, increase);
  answer->active_encoded = ToVector(DType::kFloat32, encoded);
}

// As analysis::TabulateBoosts: rare tokens do not move, the lowest token comes
// first among equals.
void PutBoosts(const analysis::PromptTotals& prompts,
               const DirectionStatisticsQuery& query,
               DirectionStatisticsAnswer* answer) {
  std::vector<double> boost;
  if (query.boosts > 0) boost = prompts.MeanBoost();
  const std::vector<double> clean = prompts.MeanClean();
  for (size_t token = 0; token < boost.size(); ++token) {
    if (clean[token] < query.min_logprob ||
        prompts.token_counts()[token] <= query.min_count) {
      boost[token] = 0;
    }
  }
  const auto put = [&](double sign, Array* tokens, Array* values) {
    std::vector<int32_t> order(boost.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + query.boosts, order.end(),
                      [&](int32_t a, int32_t b) {
                        return boost[a] != boost[b]
                                   ? sign * boost[a] > sign * boost[b]
                                   : a < b;
                      });
    order.resize(query.boosts);
    std::vector<double> chosen;
    for (int32_t token : order) chosen.push_back(boost[token]);
    *tokens = ToVector(DType::kInt32, order);
    *values = ToVector(DType::kFloat64, chosen);
  };
  put(1, &answer->boosted_tokens, &answer->boost);
  put(-1, &answer->deboosted_tokens, &answer->deboost);
}

}  // namespace

absl::StatusOr<DirectionStatisticsAnswer> AnswerDirectionStatistics(
    const JobWork& work, const DirectionStatisticsQuery& query,
    const Limits& limits) {
  const DirectionStatistics& totals = DirectionsOf(work);
  RETURN_IF_ERROR(CheckQuery(totals, query, limits));
  const DirectionSetup& setup = SetupOf(work);
  const analysis::PromptTotals& prompts = totals.prompts();
  DirectionStatisticsAnswer answer;
  answer.rows = totals.rows();
  answer.d_sae = totals.options().latents;
  PutTable(totals, setup.request.ablate, query, &answer);
  PutRows(totals, query, &answer);
  answer.losses = ToVector(DType::kFloat64, prompts.MeanLosses());
  answer.increases = ToVector(DType::kFloat64, prompts.MeanIncreases());
  answer.deviations = ToVector(DType::kFloat64, prompts.Deviations());
  answer.loss_rows = prompts.loss_rows();
  answer.attribution_rows = prompts.attribution_rows();
  answer.boost_rows = prompts.logprob_rows();
  answer.components = setup.components;
  answer.attribution = ToVector(DType::kFloat64, prompts.MeanAttribution());
  PutBoosts(prompts, query, &answer);
  return answer;
}

}  // namespace cupola::engine
