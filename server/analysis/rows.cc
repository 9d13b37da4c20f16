#include "server/analysis/rows.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"

namespace cupola::analysis {
namespace {

at::Tensor Inputs(const std::vector<Placed>& sequences) {
  std::vector<at::Tensor> blocks;
  blocks.reserve(sequences.size());
  for (const Placed& placed : sequences) {
    blocks.push_back(ViewOf(placed.sequence->inputs));
  }
  return blocks.size() == 1 ? blocks[0] : at::cat(blocks);
}

}  // namespace

int64_t RowCount(const Sequence& sequence) {
  return sequence.has_inputs()
             ? sequence.inputs.shape[0]
             : static_cast<int64_t>(sequence.positions.size());
}

absl::StatusOr<at::Tensor> GatherRows(const Pass& pass,
                                      const model::HookPoint& hook,
                                      const std::vector<Placed>& sequences) {
  if (sequences.front().sequence->has_inputs()) return Inputs(sequences);
  auto found = pass.forward->captures.find(hook);
  if (found == pass.forward->captures.end()) {
    return absl::InternalError(
        absl::StrCat("the pass holds no ", model::HookName(hook)));
  }
  const at::Tensor& value = found->second;  // [batch, longest, ...]
  const int64_t longest = value.size(1);
  at::Tensor flat = value.reshape({value.size(0) * longest, -1});

  std::vector<int64_t> index;
  for (const Placed& placed : sequences) {
    for (int64_t position : placed.sequence->positions) {
      index.push_back(placed.row * longest + position);
    }
  }
  bool everything = static_cast<int64_t>(index.size()) == flat.size(0);
  for (size_t i = 0; everything && i < index.size(); ++i) {
    everything = index[i] == static_cast<int64_t>(i);
  }
  if (everything) return flat;
  at::Tensor rows = at::tensor(index, at::kLong);
  return flat.index_select(0, rows.to(flat.device()));
}

at::Tensor SelectPositions(const at::Tensor& value,
                           const model::HookPoint& hook, int64_t row,
                           const std::vector<int64_t>& positions,
                           int64_t length) {
  const at::Tensor index = at::tensor(positions, at::kLong).to(value.device());
  const at::Tensor mine = value.select(0, row);
  if (hook.kind == model::HookKind::kAttnScores ||
      hook.kind == model::HookKind::kPattern) {
    return mine.narrow(2, 0, length).index_select(1, index).transpose(0, 1);
  }
  return mine.index_select(0, index);
}

}  // namespace cupola::analysis
