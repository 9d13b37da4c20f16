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

// Sampled tokens whose latents are looked up in one pass over all samples.
constexpr int64_t kTokensAtOnce = int64_t{1} << 18;
// Latents after which a pass asks whether it should go on.
constexpr int64_t kPolledLatents = 64;
// Partners of a latent, beside twice those asked for, before the smallest go.
constexpr size_t kMostPartners = 64;

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
  if (tokens_ + other.tokens_ > kMostTokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("samples of ", tokens_ + other.tokens_,
                     " tokens; accepted: ", kMostTokens));
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
  RETURN_IF_ERROR(CheckTokens(tokens_));
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

absl::Status PairSample::FindPartners(
    PairMeasure measure, const std::vector<int64_t>& latents, size_t begin,
    size_t end, int64_t m, const std::function<absl::Status()>& poll,
    std::vector<std::vector<Partner>>* top) const {
  // Whose samples each of their tokens is in.
  std::unordered_map<Example, std::vector<size_t>, HashExample, SameToken>
      sampled_by;
  for (size_t asked = begin; asked < end; ++asked) {
    for (int64_t i = 0; i < options_.sample; ++i) {
      const Example& token = samples_[latents[asked] * options_.sample + i];
      if (token.value == 0) break;
      sampled_by[token].push_back(asked);
    }
  }
  const size_t kept = 2 * static_cast<size_t>(m) + kMostPartners;
  std::vector<int64_t> seen(end - begin, -1);
  for (int64_t other = 0; other < options_.latents; ++other) {
    if (other % kPolledLatents == 0) RETURN_IF_ERROR(poll());
    for (int64_t i = 0; i < options_.sample; ++i) {
      const Example& token = samples_[other * options_.sample + i];
      if (token.value == 0) break;
      const auto found = sampled_by.find(token);
      if (found == sampled_by.end()) continue;
      for (const size_t asked : found->second) {
        if (other == latents[asked] ||
            std::exchange(seen[asked - begin], other) == other) {
          continue;
        }
        const PairNumbers numbers = Of(latents[asked], other);
        if (numbers.both == 0) continue;
        std::vector<Partner>& partners = (*top)[asked];
        partners.push_back({other, MeasureOf(measure, numbers)});
        if (partners.size() < kept) continue;
        partners = LargestPartners(std::move(partners), m);
      }
    }
  }
  for (size_t asked = begin; asked < end; ++asked) {
    (*top)[asked] = LargestPartners(std::move((*top)[asked]), m);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<Partner>>> PairSample::Top(
    PairMeasure measure, const std::vector<int64_t>& latents, int64_t m,
    const std::function<absl::Status()>& poll) const {
  if (measure == PairMeasure::kPearson || measure == PairMeasure::kCosine) {
    return absl::InvalidArgumentError(
        "measure: a sample has no sums of activations; accepted: those of "
        "counts");
  }
  std::vector<std::vector<Partner>> top(latents.size());
  const size_t at_once = std::max<int64_t>(1, kTokensAtOnce / options_.sample);
  for (size_t begin = 0; begin < latents.size(); begin += at_once) {
    const size_t end = std::min(begin + at_once, latents.size());
    RETURN_IF_ERROR(FindPartners(measure, latents, begin, end, m, poll, &top));
  }
  return top;
}

}  // namespace cupola::analysis
