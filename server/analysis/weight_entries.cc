#include "server/analysis/weight_entries.h"

#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/tensor_io.h"
#include "server/dictionary/named_tensors.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// One record for the one sequence.
std::vector<std::vector<storage::Array>> Entries(
    at::Tensor tensor, const EntrySelection& selection) {
  const at::Tensor shape = at::tensor(tensor.sizes(), at::kLong);
  const auto select = [&tensor](int64_t axis,
                                const std::vector<int64_t>& indices) {
    if (indices.empty()) return;
    tensor = tensor.index_select(
        axis, at::tensor(indices, at::kLong).to(tensor.device()));
  };
  select(-1, selection.columns);
  select(0, selection.rows);
  return {{ToArray(tensor, storage::DType::kFloat32),
           ToArray(shape, storage::DType::kInt64)}};
}

void AddSelection(const EntrySelection& selection, storage::Hasher* hasher) {
  hasher->AddInts(selection.rows.data(), selection.rows.size())
      .AddInts(selection.columns.data(), selection.columns.size());
}

}  // namespace

std::vector<int64_t> EntrySelection::ShapeOf(std::vector<int64_t> shape) const {
  if (!columns.empty()) shape.back() = static_cast<int64_t>(columns.size());
  if (!rows.empty()) shape.front() = static_cast<int64_t>(rows.size());
  return shape;
}

ModelWeightAnalysis::ModelWeightAnalysis(
    std::shared_ptr<const model::ModelSource> source,
    model::Processing processing, at::ScalarType dtype,
    model::NamedWeight weight, EntrySelection selection)
    : source_(std::move(source)),
      processing_(processing),
      dtype_(dtype),
      weight_(std::move(weight)),
      selection_(std::move(selection)) {}

storage::Digest ModelWeightAnalysis::Identity(const storage::Digest& model,
                                              model::Processing processing,
                                              at::ScalarType dtype,
                                              const model::NamedWeight& weight,
                                              const EntrySelection& selection) {
  storage::Hasher hasher("model-weight/1");
  hasher.AddDigest(model)
      .AddInt(static_cast<int64_t>(processing))
      .AddBytes(at::toString(dtype))
      .AddBytes(weight.name);
  AddSelection(selection, &hasher);
  return hasher.Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
ModelWeightAnalysis::Run(const Pass& /*pass*/,
                         const std::vector<Placed>& /*sequences*/) const {
  ASSIGN_OR_RETURN(
      at::Tensor tensor,
      model::ReadNamedWeight(*source_, processing_, dtype_, weight_));
  return Entries(std::move(tensor), selection_);
}

DictionaryTensorAnalysis::DictionaryTensorAnalysis(
    std::shared_ptr<const dictionary::Dictionary> dictionary, std::string name,
    EntrySelection selection)
    : dictionary_(std::move(dictionary)),
      name_(std::move(name)),
      selection_(std::move(selection)) {}

storage::Digest DictionaryTensorAnalysis::Identity(
    const storage::Digest& content, dictionary::Half half,
    const std::string& name, const EntrySelection& selection) {
  storage::Hasher hasher("dictionary-tensor/1");
  hasher.AddDigest(content).AddInt(static_cast<int64_t>(half)).AddBytes(name);
  AddSelection(selection, &hasher);
  return hasher.Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
DictionaryTensorAnalysis::Run(const Pass& /*pass*/,
                              const std::vector<Placed>& /*sequences*/) const {
  ASSIGN_OR_RETURN(at::Tensor tensor,
                   dictionary::NamedTensor(*dictionary_, name_));
  return Entries(std::move(tensor), selection_);
}

}  // namespace cupola::analysis
