#include "server/analysis/boosts.h"

#include "ATen/ATen.h"
#include "server/analysis/tensor_io.h"

namespace cupola::analysis {
namespace {

using Records = std::vector<std::shared_ptr<const std::vector<storage::Array>>>;

// float64 [d_vocab]: the sum over the prompts of one distribution.
at::Tensor Sum(const Records& records, size_t which) {
  at::Tensor sum;
  for (const auto& record : records) {
    const at::Tensor mine = ViewOf((*record)[which]).to(at::kDouble);
    sum = sum.defined() ? sum + mine : mine;
  }
  return sum;
}

at::Tensor Mean(const Records& records, size_t which) {
  return Sum(records, which) / static_cast<double>(records.size());
}

}  // namespace

BoostTable TabulateBoosts(const Records& records, size_t first, size_t stride,
                          const BoostOptions& options) {
  const at::Tensor clean = Mean(records, first);
  at::Tensor counts = clean >= options.min_logprob;
  if (!options.tokens.empty()) {
    at::Tensor among = at::zeros_like(counts);
    among.index_fill_(0, at::tensor(options.tokens, at::kLong), true);
    counts = counts.logical_and(among);
  }
  std::vector<at::Tensor> up_tokens, up, down_tokens, down;
  for (size_t which = first + stride; which < records.front()->size();
       which += stride) {
    const at::Tensor boost =
        (clean - Mean(records, which)).masked_fill(counts.logical_not(), 0);
    for (bool descending : {true, false}) {
      const auto [values, tokens] =
          boost.sort(/*stable=*/true, /*dim=*/0, descending);
      (descending ? up : down).push_back(values.narrow(0, 0, options.top));
      (descending ? up_tokens : down_tokens)
          .push_back(tokens.narrow(0, 0, options.top));
    }
  }
  const auto table = [&](const std::vector<at::Tensor>& rows,
                         storage::DType dtype) {
    return ToArray(rows.empty() ? at::empty({0, options.top}) : at::stack(rows),
                   dtype);
  };
  BoostTable boosts{table(up_tokens, storage::DType::kInt32),
                    table(up, storage::DType::kFloat32),
                    table(down_tokens, storage::DType::kInt32),
                    table(down, storage::DType::kFloat32),
                    {}};
  if (options.sums) {
    std::vector<at::Tensor> sums;
    for (size_t which = first; which < records.front()->size();
         which += stride) {
      sums.push_back(Sum(records, which));
    }
    boosts.sums = ToArray(at::stack(sums), storage::DType::kFloat64);
  }
  return boosts;
}

}  // namespace cupola::analysis
