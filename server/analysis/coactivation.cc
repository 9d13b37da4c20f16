#include "server/analysis/coactivation.h"

#include <algorithm>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/accumulator.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

static_assert(Accumulator<Coactivation>);

struct SavedOptions {
  int64_t latents, products;

  friend bool operator==(const SavedOptions&, const SavedOptions&) = default;
};

SavedOptions ToSaved(const CoactivationOptions& options) {
  return {options.latents, options.products};
}

}  // namespace

Coactivation::Coactivation(const CoactivationOptions& options)
    : options_(options),
      counts_(options.latents),
      sums_(options.latents),
      squares_(options.latents),
      both_(Pairs(options.latents)),
      products_(options.products ? Pairs(options.latents) : 0),
      block_(options.latents) {}

double Coactivation::Bytes(const CoactivationOptions& options) {
  const double latents = static_cast<double>(options.latents);
  return latents * (latents - 1) / 2 *
             (sizeof(uint32_t) + (options.products ? sizeof(double) : 0)) +
         latents * 3 * sizeof(double) +
         static_cast<double>(kBlockEntries) *
             (sizeof(LatentEntry) + sizeof(TokenBlock::Place));
}

absl::Status Coactivation::Add(const SparseView& rows) {
  if (tokens_ + rows.rows > kMaxTokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("co-activation of ", tokens_ + rows.rows,
                     " tokens; accepted: ", kMaxTokens));
  }
  tokens_ += rows.rows;
  for (int64_t i = 0; i < rows.entries(); ++i) {
    const double value = rows.values[i];
    if (!(value > 0)) continue;
    const int32_t latent = rows.indices[i];
    ++counts_[latent];
    sums_[latent] += value;
    squares_[latent] += value * value;
  }
  block_.Append(rows);
  if (std::max(block_.entries(), block_.tokens()) >= kBlockEntries) WorkOff();
  return absl::OkStatus();
}

// A latent's pairs with higher ones lie side by side, and so do, within a
// token, the entries behind its own.
void Coactivation::AddPairsOf(int64_t latent,
                              const TokenBlock::ByLatent& turned,
                              std::vector<uint32_t>* counts,
                              std::vector<double>* sums) {
  const int64_t columns = options_.latents - latent - 1;
  const int64_t first = turned.begins[latent], last = turned.begins[latent + 1];
  uint32_t* const both = both_.data() + RowBegin(latent);
  double* const products =
      options_.products ? products_.data() + RowBegin(latent) : nullptr;
  int64_t touched = 0;
  for (int64_t p = first; p < last; ++p) {
    const auto [token, index] = turned.places[p];
    touched += block_.End(token) - (&block_.Entry(index) + 1);
  }
  // Few products go straight to their places; many through scratch, which
  // stays in the core's cache.
  const bool few = touched < columns / 8;
  uint32_t* const count_to = few ? both : counts->data();
  double* const sum_to = few ? products : sums->data();
  for (int64_t p = first; p < last; ++p) {
    const auto [token, index] = turned.places[p];
    const LatentEntry& own = block_.Entry(index);
    const LatentEntry* const end = block_.End(token);
    for (const LatentEntry* other = &own + 1; other < end; ++other) {
      const int64_t j = other->latent - latent - 1;
      ++count_to[j];
      if (products != nullptr) {
        sum_to[j] += static_cast<double>(own.value) * other->value;
      }
    }
  }
  if (few) return;
  for (int64_t j = 0; j < columns; ++j) {
    both[j] += (*counts)[j];
    (*counts)[j] = 0;
  }
  for (int64_t j = 0; j < columns && products != nullptr; ++j) {
    products[j] += (*sums)[j];
    (*sums)[j] = 0;
  }
}

void Coactivation::WorkOff() {
  const TokenBlock::ByLatent turned = block_.Turn();
  const int64_t latents = options_.latents;
  // Low latents have more pairs than high ones: one of each at a time.
  at::parallel_for(0, (latents + 1) / 2, 8, [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> counts(latents);
    std::vector<double> sums(latents);
    for (int64_t i = begin; i < end; ++i) {
      AddPairsOf(i, turned, &counts, &sums);
      const int64_t opposite = latents - 1 - i;
      if (opposite != i) AddPairsOf(opposite, turned, &counts, &sums);
    }
  });
  block_.Clear();
}

absl::Status Coactivation::Merge(const Coactivation& other) {
  if (!(other.options_ == options_)) {
    return absl::InvalidArgumentError(
        "co-activations of other options cannot be merged");
  }
  if (tokens_ + other.tokens_ > kMaxTokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("co-activation of ", tokens_ + other.tokens_,
                     " tokens; accepted: ", kMaxTokens));
  }
  WorkOff();
  tokens_ += other.tokens_;
  for (int64_t i = 0; i < options_.latents; ++i) {
    counts_[i] += other.counts_[i];
    sums_[i] += other.sums_[i];
    squares_[i] += other.squares_[i];
  }
  for (size_t i = 0; i < both_.size(); ++i) both_[i] += other.both_[i];
  for (size_t i = 0; i < products_.size(); ++i) {
    products_[i] += other.products_[i];
  }
  block_.Append(other.block_);
  return absl::OkStatus();
}

absl::Status Coactivation::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(ToSaved(options_)));
  RETURN_IF_ERROR(state->AppendValue(tokens_));
  RETURN_IF_ERROR(SaveVector(counts_, state));
  RETURN_IF_ERROR(SaveVector(sums_, state));
  RETURN_IF_ERROR(SaveVector(squares_, state));
  RETURN_IF_ERROR(SaveVector(both_, state));
  RETURN_IF_ERROR(SaveVector(products_, state));
  return block_.Save(state);
}

absl::Status Coactivation::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreSame(state, ToSaved(options_)));
  RETURN_IF_ERROR(state->ReadValue(&tokens_));
  RETURN_IF_ERROR(CheckTokens(tokens_, kMaxTokens));
  RETURN_IF_ERROR(RestoreVector(state, &counts_));
  RETURN_IF_ERROR(RestoreVector(state, &sums_));
  RETURN_IF_ERROR(RestoreVector(state, &squares_));
  RETURN_IF_ERROR(RestoreVector(state, &both_));
  RETURN_IF_ERROR(RestoreVector(state, &products_));
  RETURN_IF_ERROR(CheckCounts(counts_, tokens_));
  for (const auto* sums : {&sums_, &squares_, &products_}) {
    RETURN_IF_ERROR(CheckSums(*sums));
  }
  for (int64_t a = 0; a < options_.latents; ++a) {
    for (int64_t b = a + 1; b < options_.latents; ++b) {
      if (both_[RowBegin(a) + b - a - 1] <= std::min(counts_[a], counts_[b])) {
        continue;
      }
      return absl::DataLossError("the state counts a pair too often");
    }
  }
  RETURN_IF_ERROR(block_.Restore(state));
  return AtEnd(*state);
}

PairNumbers Coactivation::Of(int64_t a, int64_t b) const {
  if (a == b) {
    return {tokens_,     counts_[a],  counts_[a],
            counts_[a],  sums_[a],    sums_[a],
            squares_[a], squares_[a], options_.products ? squares_[a] : 0.0};
  }
  const int64_t low = std::min(a, b), high = std::max(a, b);
  const int64_t pair = RowBegin(low) + high - low - 1;
  return {tokens_,     counts_[a],  counts_[b],
          both_[pair], sums_[a],    sums_[b],
          squares_[a], squares_[b], products_.empty() ? 0.0 : products_[pair]};
}

std::vector<double> Coactivation::Row(PairMeasure measure,
                                      int64_t latent) const {
  std::vector<double> row(options_.latents);
  for (int64_t other = 0; other < options_.latents; ++other) {
    if (other != latent) row[other] = MeasureOf(measure, Of(latent, other));
  }
  return row;
}

std::vector<Partner> Coactivation::Top(PairMeasure measure, int64_t latent,
                                       int64_t m) const {
  std::vector<Partner> partners;
  for (int64_t other = 0; other < options_.latents; ++other) {
    if (other == latent) continue;
    const PairNumbers numbers = Of(latent, other);
    if (numbers.both == 0) continue;
    partners.push_back({other, MeasureOf(measure, numbers)});
  }
  return LargestPartners(std::move(partners), m);
}

std::vector<Partner> LargestPartners(std::vector<Partner> partners, int64_t m) {
  const int64_t count = std::min<int64_t>(m, partners.size());
  std::partial_sort(partners.begin(), partners.begin() + count, partners.end(),
                    [](const Partner& a, const Partner& b) {
                      return a.value != b.value ? a.value > b.value
                                                : a.latent < b.latent;
                    });
  partners.resize(count);
  return partners;
}

}  // namespace cupola::analysis
