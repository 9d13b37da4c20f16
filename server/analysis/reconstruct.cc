#include "server/analysis/reconstruct.h"

#include <limits>
#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::Dictionary;
using dictionary::SparseRows;

constexpr storage::DType kFloat32 = storage::DType::kFloat32;

at::Tensor RowL0(const SparseRows& features) {
  return features.indptr.diff().to(at::kFloat);
}

// One sequence's rows of the four tensors.
std::vector<storage::Array> RecordOf(const at::Tensor& reconstruction,
                                     const at::Tensor& target,
                                     const at::Tensor& error,
                                     const at::Tensor& l0, int64_t begin,
                                     int64_t rows) {
  const auto part = [&](const at::Tensor& all) {
    return ToArray(all.size(0) == 0 ? all : all.narrow(0, begin, rows),
                   kFloat32);
  };
  return {part(reconstruction), part(target), part(error), part(l0)};
}

}  // namespace

ReconstructAnalysis::ReconstructAnalysis(
    std::shared_ptr<const Dictionary> dictionary, model::HookPoint hook_in,
    model::HookPoint hook_out)
    : dictionary_(std::move(dictionary)),
      hook_in_(hook_in),
      hook_out_(hook_out) {}

storage::Digest ReconstructAnalysis::Identity(const storage::Digest& dictionary,
                                              dictionary::Half half) {
  return storage::Hasher("reconstruct/1")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
ReconstructAnalysis::Run(const Pass& pass,
                         const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(at::Tensor x, GatherRows(pass, hook_in_, sequences));
  ASSIGN_OR_RETURN(SparseRows features, dictionary_->Encode(x, {}));
  RETURN_IF_ERROR(pass.poll());
  ASSIGN_OR_RETURN(at::Tensor reconstruction,
                   dictionary_->Decode(features, x));  // [rows, d_out]

  const bool inputs = sequences.front().sequence->has_inputs();
  at::Tensor target = at::empty({0, reconstruction.size(1)});
  at::Tensor error = at::empty({0});
  if (!inputs || hook_in_ == hook_out_) {
    ASSIGN_OR_RETURN(target, GatherRows(pass, hook_out_, sequences));
    target = target.to(reconstruction.device(), at::kFloat);
    error = (target - reconstruction).square().sum(-1);
  }
  const at::Tensor l0 = RowL0(features);

  std::vector<std::vector<storage::Array>> records;
  int64_t begin = 0;
  for (const Placed& placed : sequences) {
    const int64_t rows = RowCount(*placed.sequence);
    records.push_back(RecordOf(reconstruction, target, error, l0, begin, rows));
    begin += rows;
  }
  return records;
}

DecodeAnalysis::DecodeAnalysis(
    std::shared_ptr<const Dictionary> dictionary,
    std::shared_ptr<const std::vector<storage::Array>> features)
    : dictionary_(std::move(dictionary)), features_(std::move(features)) {}

storage::Digest DecodeAnalysis::Identity(
    const storage::Digest& dictionary, dictionary::Half half,
    const std::vector<storage::Array>& features) {
  storage::Hasher hasher("decode/1");
  hasher.AddDigest(dictionary).AddInt(static_cast<int64_t>(half));
  for (const storage::Array& array : features) hasher.AddBytes(array.bytes);
  return hasher.Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> DecodeAnalysis::Run(
    const Pass& /*pass*/, const std::vector<Placed>& /*sequences*/) const {
  SparseRows rows;
  rows.indptr = ViewOf((*features_)[0]);
  rows.indices = ViewOf((*features_)[1]);
  rows.values = ViewOf((*features_)[2]);
  rows.columns = dictionary_->d_sae();
  ASSIGN_OR_RETURN(at::Tensor reconstruction,
                   dictionary_->Decode(rows, at::Tensor()));
  return std::vector<std::vector<storage::Array>>{
      RecordOf(reconstruction, at::empty({0, reconstruction.size(1)}),
               at::empty({0}), RowL0(rows), 0, reconstruction.size(0))};
}

double FractionOfVarianceUnexplained(
    const std::vector<std::shared_ptr<const std::vector<storage::Array>>>&
        records) {
  std::vector<at::Tensor> targets;
  double error = 0;
  for (const auto& record : records) {
    const at::Tensor target = ViewOf((*record)[1]);
    if (target.size(0) == 0) continue;
    targets.push_back(target.to(at::kDouble));
    error +=
        (targets.back() - ViewOf((*record)[0])).square().sum().item<double>();
  }
  if (targets.empty()) return std::numeric_limits<double>::quiet_NaN();
  const at::Tensor all = at::cat(targets);
  const double variance =
      (all - all.mean(0, /*keepdim=*/true)).square().sum().item<double>();
  return variance > 0 ? error / variance
                      : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace cupola::analysis
