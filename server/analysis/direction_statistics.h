#ifndef CUPOLA_SERVER_ANALYSIS_DIRECTION_STATISTICS_H_
#define CUPOLA_SERVER_ANALYSIS_DIRECTION_STATISTICS_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/prompt_totals.h"
#include "server/analysis/sparse_view.h"
#include "server/analysis/top_examples.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct DirectionStatisticsOptions {
  int64_t latents = 0;
  int64_t top_k = 20;             // rows with the largest activations
  double active_above = 0.1;      // at the scored position
  int64_t rows_per_latent = 200;  // rows where it is active that are kept
  int64_t mean_rows = 1000;       // rows that means and shares are of
  int64_t first_row = 0;          // the corpus begins at this row
  PromptTotalsOptions prompts;

  friend bool operator==(const DirectionStatisticsOptions&,
                         const DirectionStatisticsOptions&) = default;
};

// INVALID_ARGUMENT names the option, its value and what is accepted.
absl::Status CheckOptions(const DirectionStatisticsOptions& options);

// A latent's mean activation and share of prompts, as a public study of
// quotation marks in a small model chooses its directions by: of the
// activations at a prompt's scored position, those above share_of_max of the
// latent's largest count; n is their number plus 1e-9.
struct DirectionShare {
  double mean = 0;   // of those that count; 0 where n < min_share * prompts
  double share = 0;  // n / prompts
};
DirectionShare ShareOf(const std::vector<float>& activations, float largest,
                       double share_of_max, double min_share, int64_t prompts);

// A row at whose scored position a latent was active, and by how much the loss
// of the next token rises without its contribution, and under the
// reconstruction without it; NaN where that was not asked for.
struct ActiveRow {
  int64_t row = 0;
  int32_t position = 0;
  float activation = 0;
  float loss_increase = std::numeric_limits<float>::quiet_NaN();
  float loss_increase_encoded = std::numeric_limits<float>::quiet_NaN();
};

// What the directions of a dictionary do over a corpus of prompts, each of
// which is scored at one position: in which prompts a direction is largest, and
// in which it is active, what its ablation costs there, and what PromptTotals
// says. An Accumulator whose chunks must come in the order of rows, and merge
// so: "the first rows" are then the same however a corpus was cut.
class DirectionStatistics {
 public:
  static constexpr uint32_t kVersion = 1;

  // REQUIRES: CheckOptions is OK.
  explicit DirectionStatistics(const DirectionStatisticsOptions& options);
  static double Bytes(const DirectionStatisticsOptions& options);

  // What ablations said of a latent in a row.
  struct Effect {
    int64_t row = 0;
    int32_t latent = 0;
    float loss_increase = 0, loss_increase_encoded = 0;
  };
  // Whole rows; each one's last token is the scored one. `effects` are by row,
  // then latent.
  void Add(const SparseView& rows, const TokenPlaces& places,
           const std::vector<Effect>& effects);
  // Whether one more row where the latent is active would be kept.
  bool HasRoom(int64_t latent) const {
    return static_cast<int64_t>(active_[latent].size()) <
           options_.rows_per_latent;
  }
  PromptTotals& prompts() { return prompts_; }
  // Of rows that come behind.
  absl::Status Merge(const DirectionStatistics& other);

  // Body: i64 latents, top_k, rows_per_latent, mean_rows, first_row, variants,
  // components, d_vocab, f64 active_above; i64 rows, i64 counts[latents], f32
  // largest[latents]; of each latent i64 n, f32 activations[n], i64 n,
  // ActiveRow[n]; TopExamples' body, PromptTotals'.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

  const DirectionStatisticsOptions& options() const { return options_; }
  int64_t rows() const { return rows_; }
  // Rows at whose scored position the latent is active.
  int64_t Count(int64_t latent) const { return counts_[latent]; }
  // On any token of a row up to the scored one.
  float Largest(int64_t latent) const { return largest_[latent]; }
  // The rows with its largest activations, the best first, each once.
  std::vector<Example> Top(int64_t latent) const { return top_.Of(latent); }
  // The first rows where it is active.
  const std::vector<ActiveRow>& ActiveRows(int64_t latent) const {
    return active_[latent];
  }
  DirectionShare Share(int64_t latent, double share_of_max,
                       double min_share) const;
  const PromptTotals& prompts() const { return prompts_; }

 private:
  const DirectionStatisticsOptions options_;
  int64_t rows_ = 0;
  std::vector<int64_t> counts_;                 // [latents]
  std::vector<float> largest_;                  // [latents]
  std::vector<std::vector<float>> early_;       // [latents]: in the first rows
  std::vector<std::vector<ActiveRow>> active_;  // [latents]
  TopExamples top_;
  PromptTotals prompts_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_DIRECTION_STATISTICS_H_
