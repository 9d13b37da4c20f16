#include "server/analysis/mean_activation.h"

#include "ATen/ATen.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

storage::Digest MeanActivationAnalysis::Identity(const model::HookPoint& hook) {
  return storage::Hasher("mean/1").AddBytes(model::HookName(hook)).Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
MeanActivationAnalysis::Run(const Pass& pass,
                            const std::vector<Placed>& sequences) const {
  const at::Tensor& value = pass.forward->captures.at(hook_);
  std::vector<std::vector<storage::Array>> records;
  for (const Placed& placed : sequences) {
    RETURN_IF_ERROR(pass.poll());
    const Sequence& sequence = *placed.sequence;
    const at::Tensor rows = SelectPositions(
        value, hook_, placed.row, sequence.positions, sequence.tokens.size());
    records.push_back({ToArray(rows.sum(0, /*keepdim=*/false, at::kDouble),
                               storage::DType::kFloat64)});
  }
  return records;
}

storage::Array MeanOf(
    const std::vector<std::shared_ptr<const std::vector<storage::Array>>>&
        records,
    int64_t count) {
  at::Tensor sum = ViewOf(records.front()->front()).clone();
  for (size_t i = 1; i < records.size(); ++i) {
    sum += ViewOf(records[i]->front());
  }
  return ToArray(sum / static_cast<double>(count), storage::DType::kFloat32);
}

}  // namespace cupola::analysis
