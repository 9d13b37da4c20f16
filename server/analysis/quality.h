#ifndef CUPOLA_SERVER_ANALYSIS_QUALITY_H_
#define CUPOLA_SERVER_ANALYSIS_QUALITY_H_

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// The positions of a prompt whose next token's loss counts: the selected ones
// that have a next token, or with `every` all of them.
std::vector<int64_t> ScoredPositions(const Sequence& sequence, bool every);

// What a language model loses when a dictionary stands in for the activation it
// was trained on: the loss of the next token as it is, with the activation at
// the dictionary's output point set to zero, and with it replaced by the
// dictionary's reconstruction (its error dropped), at the selected positions.
// Both are SAELens' evaluation (and notebooks': CE score); where the same point
// is read later, the change is seen there too.
//
// Record: losses FLOAT32 [scored, 3]: clean, zero, reconstruction; of the
// selected rows squared error FLOAT32 [rows] and L0 FLOAT32 [rows]; and for the
// variance of the target over many prompts, its sum FLOAT64 [d_out] and sum of
// squares FLOAT64 [1].
class QualityAnalysis : public Analysis {
 public:
  // `score_every`: see ScoredPositions.
  QualityAnalysis(std::shared_ptr<const dictionary::Dictionary> dictionary,
                  model::HookPoint hook_in, model::HookPoint hook_out,
                  bool score_every);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half, bool score_every);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const model::HookPoint hook_in_, hook_out_;
  const bool score_every_;
};

// The dictionary's quality over all records, in float64.
struct QualitySummary {
  // Means over all scored positions.
  double clean_loss = 0, zero_loss = 0, reconstruction_loss = 0;
  // (zero - reconstruction) / (zero - clean): 1 where nothing is lost.
  double loss_recovered = 0;
  // sum |x - x^|^2 / sum |x - mean(x)|^2 over all rows; NaN where all are
  // equal.
  double fvu = 0;
  double mean_squared_error = 0;  // per value
  double l0 = 0;
};
QualitySummary Summarize(
    const std::vector<std::shared_ptr<const std::vector<storage::Array>>>&
        records);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_QUALITY_H_
