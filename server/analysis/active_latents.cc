#include "server/analysis/active_latents.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "server/analysis/encoder_input.h"
#include "server/dictionary/selection.h"
#include "server/dictionary/weights.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::Dictionary;
using dictionary::SparseRows;

// Pre-activations held at a time.
constexpr int64_t kChunkValues = int64_t{1} << 22;

// Each row's k largest pre-activations, descending. Latents that are not
// positive are -1 under kPositive.
void SelectSlots(const at::Tensor& pre, LatentMask mask, ActiveLatents* out,
                 int64_t first) {
  const int64_t n = pre.size(1), k = out->width();
  const float* data = pre.const_data_ptr<float>();
  int64_t* indices = out->indices.data_ptr<int64_t>() + first * k;
  float* values = out->values.data_ptr<float>() + first * k;
  const float floor = mask == LatentMask::kPositive
                          ? 0.0f
                          : -std::numeric_limits<float>::infinity();
  at::parallel_for(0, pre.size(0), 1, [&](int64_t begin, int64_t end) {
    dictionary::SelectionScratch scratch;
    std::vector<int32_t> chosen;
    for (int64_t row = begin; row < end; ++row) {
      const float* mine = data + row * n;
      chosen.clear();
      dictionary::SelectTopK(mine, n, k, floor, &scratch, &chosen);
      std::stable_sort(chosen.begin(), chosen.end(),
                       [mine](int a, int b) { return mine[a] > mine[b]; });
      for (size_t i = 0; i < chosen.size(); ++i) {
        indices[row * k + i] = chosen[i];
        values[row * k + i] = std::max(mine[chosen[i]], 0.0f);
      }
    }
  });
}

absl::StatusOr<ActiveLatents> FindSlots(const Dictionary& dictionary,
                                        const at::Tensor& x, LatentMask mask) {
  const dictionary::Weights& weights = dictionary.weights();
  const int64_t n = x.size(0), d_sae = dictionary.d_sae();
  ASSIGN_OR_RETURN(at::Tensor input, EncoderInput(dictionary, x));
  input = input.to(weights.W_dec.scalar_type());
  const int64_t k = std::min(dictionary.manifest().k, d_sae);
  ActiveLatents active = {at::full({n, k}, -1, at::kLong),
                          at::zeros({n, k}, at::kFloat)};
  const int64_t step = std::max<int64_t>(32, kChunkValues / d_sae);
  for (int64_t first = 0; first < n; first += step) {
    const int64_t count = std::min(step, n - first);
    const at::Tensor pre = weights.encoder(input.narrow(0, first, count))
                               .to(at::kCPU, at::kFloat)
                               .contiguous();
    SelectSlots(pre, mask, &active, first);
  }
  return ActiveLatents{active.indices.to(x.device()),
                       active.values.to(x.device())};
}

ActiveLatents Padded(const SparseRows& rows, at::Device device) {
  const int64_t n = rows.indptr.numel() - 1;
  const int64_t* indptr = rows.indptr.const_data_ptr<int64_t>();
  int64_t width = 0;
  for (int64_t row = 0; row < n; ++row) {
    width = std::max(width, indptr[row + 1] - indptr[row]);
  }
  ActiveLatents active = {at::full({n, width}, -1, at::kLong),
                          at::zeros({n, width}, at::kFloat)};
  const int32_t* from = rows.indices.const_data_ptr<int32_t>();
  const float* values = rows.values.const_data_ptr<float>();
  int64_t* to = active.indices.data_ptr<int64_t>();
  float* acts = active.values.data_ptr<float>();
  for (int64_t row = 0; row < n; ++row) {
    std::copy(from + indptr[row], from + indptr[row + 1], to + row * width);
    std::copy(values + indptr[row], values + indptr[row + 1],
              acts + row * width);
  }
  return {active.indices.to(device), active.values.to(device)};
}

}  // namespace

ActiveLatents ActiveLatents::Rows(int64_t begin, int64_t count) const {
  const ActiveLatents part = {indices.narrow(0, begin, count),
                              values.narrow(0, begin, count)};
  if (count == 0 || width() == 0) return part;
  const int64_t widest = part.valid().sum(1).max().item<int64_t>();
  return {part.indices.narrow(1, 0, widest), part.values.narrow(1, 0, widest)};
}

SparseRows ActiveLatents::ToSparse(int64_t d_sae) const {
  const at::Tensor kept = values.gt(0);
  SparseRows rows;
  rows.columns = d_sae;
  rows.indptr = at::zeros({indices.size(0) + 1}, at::kLong);
  rows.indptr.narrow(0, 1, indices.size(0)).copy_(kept.sum(1).cumsum(0));
  rows.indices =
      indices.masked_select(kept).to(at::kCPU, at::kInt).contiguous();
  rows.values = values.masked_select(kept).cpu().contiguous();
  return rows;
}

absl::StatusOr<ActiveLatents> FindActive(const Dictionary& dictionary,
                                         const at::Tensor& x, LatentMask mask) {
  if (dictionary.manifest().architecture == dictionary::Architecture::kTopK) {
    return FindSlots(dictionary, x, mask);
  }
  ASSIGN_OR_RETURN(const SparseRows rows, dictionary.Encode(x, {}));
  return Padded(rows, x.device());
}

}  // namespace cupola::analysis
