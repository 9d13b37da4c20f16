#include "server/analysis/pair_sample.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/accumulator.h"
#include "server/analysis/state_io.h"
#include "server/analysis/token_hash.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

static_assert(Accumulator<PairSample>);

// The order of a sample: empty places (value 0) last.
bool Before(const Example& a, const Example& b) {
  if (a.value == 0 || b.value == 0) return a.value != 0 && b.value == 0;
  return std::make_tuple(HashOfToken(a), a.row, a.position) <
         std::make_tuple(HashOfToken(b), b.row, b.position);
}

struct HashExample {
  size_t operator()(const Example& token) const { return HashOfToken(token); }
};
struct SameToken {
  bool operator()(const Example& a, const Example& b) const {
    return a.row == b.row && a.position == b.position;
  }
};

}  // namespace

PairSample::PairSample(const PairSampleOptions& options)
    : options_(options),
      counts_(options.latents),
      samples_(options.latents * options.sample) {}

double PairSample::Bytes(const PairSampleOptions& options) {
  return static_cast<double>(options.latents) *
         (sizeof(int64_t) +
          static_cast<double>(options.sample) * sizeof(Example));
}

void PairSample::Offer(int64_t latent, const Example& token) {
  Example* const first = &samples_[latent * options_.sample];
  int64_t place = options_.sample - 1;
  if (place < 0 || !Before(token, first[place])) return;
  for (; place > 0 && Before(token, first[place - 1]); --place) {
    first[place] = first[place - 1];
  }
  first[place] = token;
}

void PairSample::Add(const SparseView& rows, const TokenPlaces& places) {
  for (int64_t t = 0; t < rows.rows; ++t) {
    for (int64_t i = rows.indptr[t]; i < rows.indptr[t + 1]; ++i) {
      if (!(rows.values[i] > 0)) continue;
      ++counts_[rows.indices[i]];
      Offer(rows.indices[i],
            {rows.values[i], places.position[t], places.row[t]});
    }
  }
  tokens_ += rows.rows;
}

absl::Status PairSample::Merge(const PairSample& other) {
  if (!(other.options_ == options_)) {
    return absl::InvalidArgumentError(
        "samples of pairs of other options cannot be merged");
  }
  tokens_ += other.tokens_;
  for (int64_t latent = 0; latent < options_.latents; ++latent) {
    counts_[latent] += other.counts_[latent];
    for (int64_t i = 0; i < options_.sample; ++i) {
      const Example& token = other.samples_[latent * options_.sample + i];
      if (token.value > 0) Offer(latent, token);
    }
  }
  return absl::OkStatus();
}

absl::Status PairSample::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(options_.latents));
  RETURN_IF_ERROR(state->AppendValue(options_.sample));
  RETURN_IF_ERROR(state->AppendValue(tokens_));
  RETURN_IF_ERROR(SaveVector(counts_, state));
  return SaveVector(samples_, state);
}

absl::Status PairSample::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreSame(state, options_.latents));
  RETURN_IF_ERROR(RestoreSame(state, options_.sample));
  RETURN_IF_ERROR(state->ReadValue(&tokens_));
  RETURN_IF_ERROR(RestoreVector(state, &counts_));
  RETURN_IF_ERROR(CheckCounts(counts_, tokens_));
  RETURN_IF_ERROR(RestoreVector(state, &samples_));
  for (size_t i = 0; i < samples_.size(); ++i) {
    const Example& token = samples_[i];
    const bool empty = token == Example{};
    const bool follows = i % options_.sample > 0;
    if ((!empty && !(std::isfinite(token.value) && token.value > 0)) ||
        (follows && !Before(samples_[i - 1], token) &&
         !(empty && samples_[i - 1] == Example{}))) {
      return absl::DataLossError("the state's samples are in no order");
    }
  }
  return AtEnd(*state);
}

PairNumbers PairSample::Of(int64_t a, int64_t b) const {
  const Example* const first = samples_.data() + a * options_.sample;
  const Example* const second = samples_.data() + b * options_.sample;
  int64_t i = 0, j = 0, both = 0, either = 0;
  const auto is_left = [this](const Example* of, int64_t at) {
    return at < options_.sample && of[at].value > 0;
  };
  // Where all tokens of both are in their samples, all of them are looked at.
  const bool whole =
      counts_[a] <= options_.sample && counts_[b] <= options_.sample;
  while ((whole || either < options_.sample) &&
         (is_left(first, i) || is_left(second, j))) {
    ++either;
    const bool left = is_left(first, i), right = is_left(second, j);
    if (left && right && SameToken()(first[i], second[j])) {
      ++both;
      ++i;
      ++j;
    } else if (!right || (left && Before(first[i], second[j]))) {
      ++i;
    } else {
      ++j;
    }
  }
  PairNumbers numbers;
  numbers.tokens = tokens_;
  numbers.a_count = counts_[a];
  numbers.b_count = counts_[b];
  // n_ab of J: both + either = n_a + n_b on the whole and in the sample.
  const double sum = static_cast<double>(counts_[a]) + counts_[b];
  if (both > 0) {
    numbers.both = std::min<int64_t>(std::llround(sum * both / (both + either)),
                                     std::min(counts_[a], counts_[b]));
  }
  return numbers;
}

absl::StatusOr<std::vector<std::vector<Partner>>> PairSample::Top(
    PairMeasure measure, const std::vector<int64_t>& latents, int64_t m) const {
  if (measure == PairMeasure::kPearson || measure == PairMeasure::kCosine) {
    return absl::InvalidArgumentError(
        "measure: a sample has no sums of activations; accepted: those of "
        "counts");
  }
  // Where each sampled token is sampled.
  std::unordered_map<Example, std::vector<int32_t>, HashExample, SameToken>
      sampled_by;
  for (int64_t latent = 0; latent < options_.latents; ++latent) {
    for (int64_t i = 0; i < options_.sample; ++i) {
      const Example& token = samples_[latent * options_.sample + i];
      if (token.value == 0) break;
      sampled_by[token].push_back(static_cast<int32_t>(latent));
    }
  }
  std::vector<std::vector<Partner>> top;
  std::vector<int64_t> seen(options_.latents, -1);
  for (size_t asked = 0; asked < latents.size(); ++asked) {
    std::vector<Partner> partners;
    for (int64_t i = 0; i < options_.sample; ++i) {
      const Example& token = samples_[latents[asked] * options_.sample + i];
      if (token.value == 0) break;
      for (const int32_t other : sampled_by.at(token)) {
        if (other == latents[asked] ||
            std::exchange(seen[other], asked) == static_cast<int64_t>(asked)) {
          continue;
        }
        const PairNumbers numbers = Of(latents[asked], other);
        if (numbers.both == 0) continue;
        partners.push_back({other, MeasureOf(measure, numbers)});
      }
    }
    top.push_back(LargestPartners(std::move(partners), m));
  }
  return top;
}

}  // namespace cupola::analysis
