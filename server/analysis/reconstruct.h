#ifndef CUPOLA_SERVER_ANALYSIS_RECONSTRUCT_H_
#define CUPOLA_SERVER_ANALYSIS_RECONSTRUCT_H_

#include <memory>
#include <set>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// What a dictionary makes of its input: decode(encode(x)), beside the
// activation at its output hook that it should equal.
//
// Record: reconstruction FLOAT32 [rows, d_out]; target FLOAT32 [rows, d_out];
// squared error FLOAT32 [rows]; L0 FLOAT32 [rows]. For inputs the target is the
// input itself where the dictionary reads and writes one hook point; else
// target and error are empty ([0, d_out], [0]).
class ReconstructAnalysis : public Analysis {
 public:
  ReconstructAnalysis(std::shared_ptr<const dictionary::Dictionary> dictionary,
                      model::HookPoint hook_in, model::HookPoint hook_out);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half);

  std::set<model::HookPoint> captures() const override {
    return {hook_in_, hook_out_};
  }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const model::HookPoint hook_in_, hook_out_;
};

// Decoding alone: the rows of given features. Sequence::inputs is not used; the
// features are part of the question, so there is one sequence.
class DecodeAnalysis : public Analysis {
 public:
  DecodeAnalysis(std::shared_ptr<const dictionary::Dictionary> dictionary,
                 std::shared_ptr<const std::vector<storage::Array>> features);
  static storage::Digest Identity(const storage::Digest& dictionary,
                                  dictionary::Half half,
                                  const std::vector<storage::Array>& features);

  std::set<model::HookPoint> captures() const override { return {}; }
  // Record: as ReconstructAnalysis' with empty target and error.
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const std::shared_ptr<const dictionary::Dictionary> dictionary_;
  const std::shared_ptr<const std::vector<storage::Array>> features_;
};

// sum |target - reconstruction|^2 / sum |target - mean(target)|^2 over the rows
// of all records, in float64; NaN without targets or where they are all equal.
// The definition of SAELens' evaluation and of most papers.
double FractionOfVarianceUnexplained(
    const std::vector<std::shared_ptr<const std::vector<storage::Array>>>&
        records);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_RECONSTRUCT_H_
