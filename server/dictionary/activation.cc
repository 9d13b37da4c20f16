#include "server/dictionary/activation.h"

#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cupola::dictionary {

at::Tensor Rectify(Architecture architecture, const ActivationVectors& vectors,
                   const at::Tensor& pre) {
  switch (architecture) {
    case Architecture::kJumpRelu:
      return at::relu(pre) * pre.gt(vectors.threshold);
    case Architecture::kGated:
      return at::relu(pre * vectors.mag_scale + vectors.b_mag) *
             (pre + vectors.b_gate).gt(0);
    case Architecture::kStandard:
    case Architecture::kTopK:
    case Architecture::kMatchingPursuit:
      return at::relu(pre);
  }
  return pre;
}

at::Tensor KeepTopK(const at::Tensor& pre, int64_t k) {
  if (k >= pre.size(1)) return at::relu(pre);
  const at::Tensor largest =
      std::get<0>(at::topk(pre, k, -1, /*largest=*/true, /*sorted=*/true));
  const at::Tensor last = largest.narrow(1, k - 1, 1);  // [rows, 1]
  at::Tensor kept = pre.ge(last);
  // Ties with the k-th entry: the ones of lowest index, as many as fit. Ties at
  // or below zero do not matter, they end as zero.
  const at::Tensor tied = kept.sum(1, /*keepdim=*/true).gt(k) & last.gt(0);
  if (tied.any().item<bool>()) {
    const at::Tensor above = pre.gt(last);
    const at::Tensor room = k - above.sum(1, true);
    const at::Tensor equal = pre.eq(last);
    kept = above | (equal & equal.cumsum(1).le(room));
  }
  return at::relu(pre) * kept;
}

absl::StatusOr<SparseRows> ToSparse(const at::Tensor& acts,
                                    const at::Tensor& columns, int64_t d_sae,
                                    const EncodeOptions& options) {
  const at::Tensor finite = at::isfinite(acts).all(1);
  if (!finite.all().item<bool>()) {
    return OverflowError(
        finite.logical_not().nonzero().select(0, 0).item<int64_t>());
  }
  at::Tensor kept = acts.gt(options.min_activation);
  if (options.top_k > 0 && options.top_k < acts.size(1)) {
    kept = kept & KeepTopK(acts, options.top_k).gt(0);
  }
  const at::Tensor where = kept.nonzero();  // [entries, 2], row-major order
  SparseRows rows;
  rows.columns = d_sae;
  rows.indptr = at::zeros({acts.size(0) + 1}, at::kLong);
  rows.indptr.narrow(0, 1, acts.size(0)).copy_(kept.sum(1).cumsum(0));
  at::Tensor latent = where.select(1, 1);
  rows.values = acts.index({where.select(1, 0), latent}).cpu();
  if (columns.defined()) latent = columns.index_select(0, latent);
  rows.indices = latent.to(at::kCPU, at::kInt).contiguous();
  return rows;
}

absl::Status OverflowError(int64_t row) {
  return absl::InvalidArgumentError(
      absl::StrCat("row ", row, ": its activations are not finite numbers"));
}

}  // namespace cupola::dictionary
