#ifndef CUPOLA_SERVER_ANALYSIS_LOGIT_LENS_H_
#define CUPOLA_SERVER_ANALYSIS_LOGIT_LENS_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "server/analysis/analysis.h"
#include "server/model/model_config.h"

namespace cupola::analysis {

struct LogitLensQuery {
  std::vector<model::HookPoint> residuals;  // in forward order
  std::vector<int64_t> tokens;
  int64_t top = 0;
};

// TransformerLens' accumulated_resid: hook_resid_pre of every layer ("0_pre",
// ...), with `mids` hook_resid_mid ("0_mid") between, and the last residual
// ("final_post"). A parallel block has no mid.
std::vector<model::HookPoint> AccumulatedResiduals(
    const model::ModelConfig& config, bool mids);
std::string ResidualLabel(const model::HookPoint& residual,
                          const model::ModelConfig& config);

// The logit lens: what the model would say if it ended at a residual: the final
// norm, with statistics of its own (accumulated_resid with apply_ln), and the
// unembedding, softcap included.
//
// Record, R residuals, per selected position: top_tokens INT32 [rows, R, top]
// and top_logits FLOAT32 (descending; the lowest id wins ties); of the given
// tokens logits and logprobs FLOAT32 [rows, R, tokens] and ranks INT32: how
// many logits are greater.
class LogitLensAnalysis : public Analysis {
 public:
  explicit LogitLensAnalysis(LogitLensQuery query);
  static storage::Digest Identity(const LogitLensQuery& query);

  std::set<model::HookPoint> captures() const override;
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const Pass& pass, const std::vector<Placed>& sequences) const override;

 private:
  const LogitLensQuery query_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LOGIT_LENS_H_
