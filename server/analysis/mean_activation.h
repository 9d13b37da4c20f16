#ifndef CUPOLA_SERVER_ANALYSIS_MEAN_ACTIVATION_H_
#define CUPOLA_SERVER_ANALYSIS_MEAN_ACTIVATION_H_

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"

namespace cupola::analysis {

// The mean of a hook point's value over prompts: what mean ablation puts in its
// place. The mean runs over every selected position of every prompt alike (a
// long prompt weighs more than a short one), as source notebooks take it.
//
// Record: the sum over the sequence's positions, FLOAT64 [...HookShape].
class MeanActivationAnalysis : public Analysis {
 public:
  // A point that has a width: no attention scores, no patterns.
  explicit MeanActivationAnalysis(model::HookPoint hook) : hook_(hook) {}
  static storage::Digest Identity(const model::HookPoint& hook);

  std::set<model::HookPoint> captures() const override { return {hook_}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const model::HookPoint hook_;
};

// The mean of `count` >= 1 rows from their sums by sequence: FLOAT32
// [...HookShape]. Added up in the order of the records.
storage::Array MeanOf(
    const std::vector<std::shared_ptr<const std::vector<storage::Array>>>&
        records,
    int64_t count);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_MEAN_ACTIVATION_H_
