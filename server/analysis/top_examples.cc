#include "server/analysis/top_examples.h"

#include <algorithm>
#include <cmath>

#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

TopExamples::TopExamples(int64_t latents, int64_t k, bool distinct_rows)
    : latents_(latents),
      k_(k),
      distinct_rows_(distinct_rows),
      examples_(latents * k) {}

double TopExamples::Bytes(int64_t latents, int64_t k) {
  return static_cast<double>(latents) * static_cast<double>(k) *
         sizeof(Example);
}

void TopExamples::Offer(int64_t latent, const Example& example) {
  if (k_ == 0) return;
  Example* const first = &examples_[latent * k_];
  int64_t place = k_ - 1;  // the one that goes
  if (!Better(example, first[place])) return;
  if (distinct_rows_) {
    for (int64_t i = 0; i < k_ && first[i].value > 0; ++i) {
      if (first[i].row != example.row) continue;
      if (!Better(example, first[i])) return;
      place = i;
      break;
    }
  }
  for (; place > 0 && Better(example, first[place - 1]); --place) {
    first[place] = first[place - 1];
  }
  first[place] = example;
}

std::vector<Example> TopExamples::Of(int64_t latent) const {
  const auto first = examples_.begin() + latent * k_;
  return {first, std::find_if(first, first + k_, [](const Example& example) {
            return example.value == 0;
          })};
}

void TopExamples::Merge(const TopExamples& other) {
  for (int64_t latent = 0; latent < latents_; ++latent) {
    for (const Example& example : other.Of(latent)) Offer(latent, example);
  }
}

absl::Status TopExamples::Save(storage::StateWriter* state) const {
  return SaveVector(examples_, state);
}

absl::Status TopExamples::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreVector(state, &examples_));
  for (size_t i = 0; i < examples_.size(); ++i) {
    const Example& example = examples_[i];
    const bool follows = i % k_ > 0;
    const bool empty = example == Example{};
    if (!empty && !(std::isfinite(example.value) && example.value > 0)) {
      return absl::DataLossError("the state has an example without a value");
    }
    if (follows && !Better(examples_[i - 1], example) &&
        !(empty && examples_[i - 1] == Example{})) {
      return absl::DataLossError("the state's examples are in no order");
    }
  }
  return absl::OkStatus();
}

}  // namespace cupola::analysis
