#include "server/analysis/prompt_totals.h"

#include <algorithm>
#include <cmath>

#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

void AddTo(const std::vector<double>& from, std::vector<double>* to) {
  for (size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
}

std::vector<double> Mean(std::vector<double> sums, int64_t rows) {
  for (double& sum : sums)
    sum /= static_cast<double>(std::max<int64_t>(rows, 1));
  return sums;
}

// Any finite numbers: a log-probability is below 0.
absl::Status RestoreSums(storage::StateReader* state,
                         std::vector<double>* sums) {
  RETURN_IF_ERROR(RestoreVector(state, sums));
  for (double sum : *sums) {
    if (std::isnan(sum)) {
      return absl::DataLossError("the state has a sum that is no number");
    }
  }
  return absl::OkStatus();
}

}  // namespace

PromptTotals::PromptTotals(const PromptTotalsOptions& options)
    : options_(options),
      losses_(options.variants),
      increases_(options.variants),
      squares_(options.variants),
      attribution_(options.components),
      clean_(options.d_vocab),
      changed_(options.d_vocab),
      tokens_(options.d_vocab) {}

double PromptTotals::Bytes(const PromptTotalsOptions& options) {
  return 8.0 * (3.0 * static_cast<double>(options.variants) +
                static_cast<double>(options.components) +
                3.0 * static_cast<double>(options.d_vocab));
}

void PromptTotals::AddLosses(const float* losses, int64_t rows) {
  for (int64_t variant = 0; variant < options_.variants; ++variant) {
    for (int64_t row = 0; row < rows; ++row) {
      const double loss = losses[variant * rows + row];
      const double increase = loss - losses[row];
      losses_[variant] += loss;
      increases_[variant] += increase;
      squares_[variant] += increase * increase;
    }
  }
  loss_rows_ += rows;
}

void PromptTotals::AddAttribution(const float* values, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < options_.components; ++c) {
      attribution_[c] += values[row * options_.components + c];
    }
  }
  attribution_rows_ += rows;
}

void PromptTotals::AddLogprobs(const double* clean, const double* changed,
                               int64_t rows) {
  for (int64_t token = 0; token < options_.d_vocab; ++token) {
    clean_[token] += clean[token];
    changed_[token] += changed[token];
  }
  logprob_rows_ += rows;
}

void PromptTotals::CountTokens(const std::vector<int32_t>& ids) {
  if (tokens_.empty()) return;
  for (int32_t id : ids) ++tokens_[id];
}

void PromptTotals::Merge(const PromptTotals& other) {
  loss_rows_ += other.loss_rows_;
  attribution_rows_ += other.attribution_rows_;
  logprob_rows_ += other.logprob_rows_;
  AddTo(other.losses_, &losses_);
  AddTo(other.increases_, &increases_);
  AddTo(other.squares_, &squares_);
  AddTo(other.attribution_, &attribution_);
  AddTo(other.clean_, &clean_);
  AddTo(other.changed_, &changed_);
  for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] += other.tokens_[i];
}

absl::Status PromptTotals::Save(storage::StateWriter* state) const {
  for (int64_t rows : {loss_rows_, attribution_rows_, logprob_rows_}) {
    RETURN_IF_ERROR(state->AppendValue(rows));
  }
  for (const auto* sums :
       {&losses_, &increases_, &squares_, &attribution_, &clean_, &changed_}) {
    RETURN_IF_ERROR(SaveVector(*sums, state));
  }
  return SaveVector(tokens_, state);
}

absl::Status PromptTotals::Restore(storage::StateReader* state) {
  for (int64_t* rows : {&loss_rows_, &attribution_rows_, &logprob_rows_}) {
    RETURN_IF_ERROR(state->ReadValue(rows));
    if (*rows < 0)
      return absl::DataLossError("the state has fewer rows than 0");
  }
  for (auto* sums :
       {&losses_, &increases_, &squares_, &attribution_, &clean_, &changed_}) {
    RETURN_IF_ERROR(RestoreSums(state, sums));
  }
  return RestoreVector(state, &tokens_);
}

std::vector<double> PromptTotals::MeanLosses() const {
  return Mean(losses_, loss_rows_);
}

std::vector<double> PromptTotals::MeanIncreases() const {
  return Mean(increases_, loss_rows_);
}

std::vector<double> PromptTotals::Deviations() const {
  const std::vector<double> means = MeanIncreases();
  std::vector<double> deviations = Mean(squares_, loss_rows_);
  for (size_t i = 0; i < deviations.size(); ++i) {
    deviations[i] =
        std::sqrt(std::max(deviations[i] - means[i] * means[i], 0.0));
  }
  return deviations;
}

std::vector<double> PromptTotals::MeanAttribution() const {
  return Mean(attribution_, attribution_rows_);
}

std::vector<double> PromptTotals::MeanClean() const {
  return Mean(clean_, logprob_rows_);
}

std::vector<double> PromptTotals::MeanBoost() const {
  std::vector<double> boost = clean_;
  for (size_t i = 0; i < boost.size(); ++i) boost[i] -= changed_[i];
  return Mean(std::move(boost), logprob_rows_);
}

}  // namespace cupola::analysis
