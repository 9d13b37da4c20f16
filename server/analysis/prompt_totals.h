#ifndef CUPOLA_SERVER_ANALYSIS_PROMPT_TOTALS_H_
#define CUPOLA_SERVER_ANALYSIS_PROMPT_TOTALS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct PromptTotalsOptions {
  int64_t variants = 0;    // of a run whose losses are added up; 0: none
  int64_t components = 0;  // of an attribution; 0: none
  int64_t d_vocab = 0;     // of boosts and of tokens that are counted; 0: none

  friend bool operator==(const PromptTotalsOptions&,
                         const PromptTotalsOptions&) = default;
};

// What is averaged over prompts, one position of each: losses under several
// changes, a residual's components, log-probabilities of the whole vocabulary.
// Sums are float64. An Accumulator, but for kVersion: its owner's covers its
// bytes.
class PromptTotals {
 public:
  explicit PromptTotals(const PromptTotalsOptions& options);
  static double Bytes(const PromptTotalsOptions& options);

  // [variants, rows] of the same rows, the first variant being the clean one.
  void AddLosses(const float* losses, int64_t rows);
  // [rows, components].
  void AddAttribution(const float* values, int64_t rows);
  // float64 [d_vocab] each: sums over `rows` prompts of log-probabilities.
  void AddLogprobs(const double* clean, const double* changed, int64_t rows);
  // Ids are below d_vocab.
  void CountTokens(const std::vector<int32_t>& ids);
  // REQUIRES: the same options.
  void Merge(const PromptTotals& other);

  // Body: i64 loss_rows, attribution_rows, logprob_rows; f64 losses[variants],
  // increases[variants], squares[variants], attribution[components],
  // clean[d_vocab], changed[d_vocab], i64 tokens[d_vocab].
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

  const PromptTotalsOptions& options() const { return options_; }
  int64_t loss_rows() const { return loss_rows_; }
  int64_t attribution_rows() const { return attribution_rows_; }
  int64_t logprob_rows() const { return logprob_rows_; }
  // [variants]: mean losses, and the mean and the standard deviation (of the
  // population) of their increases over the clean one's. 0 of no rows.
  std::vector<double> MeanLosses() const;
  std::vector<double> MeanIncreases() const;
  std::vector<double> Deviations() const;
  std::vector<double> MeanAttribution() const;  // [components]
  std::vector<double> MeanClean() const;        // [d_vocab]
  // [d_vocab]: of the clean log-probability less the changed one.
  std::vector<double> MeanBoost() const;
  const std::vector<int64_t>& token_counts() const { return tokens_; }

 private:
  const PromptTotalsOptions options_;
  int64_t loss_rows_ = 0, attribution_rows_ = 0, logprob_rows_ = 0;
  std::vector<double> losses_, increases_, squares_;  // [variants]
  std::vector<double> attribution_;                   // [components]
  std::vector<double> clean_, changed_;               // [d_vocab]
  std::vector<int64_t> tokens_;                       // [d_vocab]
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_PROMPT_TOTALS_H_
