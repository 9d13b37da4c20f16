#include "server/analysis/activations.h"

#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
ActivationsAnalysis::ActivationsAnalysis(std::vector<model::HookPoint> hooks,
                                         storage::DType dtype)
    : hooks_(std::move(hooks)), dtype_(dtype) {}

storage::Digest ActivationsAnalysis::Identity(
    const std::vector<model::HookPoint>& hooks, storage::DType dtype) {
  storage::Hasher hasher("activations/1");
  hasher.AddInt(static_cast<int64_t>(dtype)).AddInt(hooks.size());
  for (const model::HookPoint& hook : hooks) {
    hasher.AddBytes(model::HookName(hook));
  }
  return hasher.Finish();
}

std::set<model::HookPoint> ActivationsAnalysis::captures() const {
  return {hooks_.begin(), hooks_.end()};
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
ActivationsAnalysis::Run(const Pass& pass,
                         const std::vector<Placed>& sequences) const {
  std::vector<std::vector<storage::Array>> records;
  for (const Placed& placed : sequences) {
    RETURN_IF_ERROR(pass.poll());
    std::vector<storage::Array>& record = records.emplace_back();
    for (const model::HookPoint& hook : hooks_) {
      const at::Tensor& value = pass.forward->captures.at(hook);
      record.push_back(ToArray(
          SelectPositions(value, hook, placed.row, placed.sequence->positions,
                          placed.sequence->tokens.size()),
          dtype_));
    }
  }
  return records;
}

}  // namespace cupola::analysis
