#include "server/analysis/feature_similarity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/accumulator.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

static_assert(Accumulator<FeatureSimilarity>);

// Tokens whose products a float32 adds up before they go to the total.
constexpr int64_t kScratchTokens = 512;
// A row with fewer products than this part of its columns does without scratch.
constexpr int64_t kFewParts = 8;
// Tokens whose entries are fetched into the cache beforehand.
constexpr int64_t kAhead = 6;

struct SavedOptions {
  int64_t a_latents, b_latents, float64;

  friend bool operator==(const SavedOptions&, const SavedOptions&) = default;
};

SavedOptions ToSaved(const FeatureSimilarityOptions& options) {
  return {options.a_latents, options.b_latents, options.float64};
}

void Prefetch(const TokenBlock& block, int64_t token) {
  constexpr int64_t kLine = 64 / sizeof(LatentEntry);
  const LatentEntry* const end = block.End(token);
  for (const LatentEntry* e = block.Begin(token); e < end; e += kLine) {
    __builtin_prefetch(e);
  }
}

template <typename T>
void AddScaled(const TokenBlock& block, int64_t token, float by, T* row) {
  const LatentEntry* const end = block.End(token);
  for (const LatentEntry* e = block.Begin(token); e < end; ++e) {
    row[e->latent] += by * e->value;
  }
}

template <typename T>
void Drain(std::vector<float>* scratch, T* row) {
  const int64_t n = static_cast<int64_t>(scratch->size());
  float* const from = scratch->data();
  for (int64_t j = 0; j < n; ++j) {
    row[j] += from[j];
    from[j] = 0;
  }
}

}  // namespace

FeatureSimilarity::FeatureSimilarity(const FeatureSimilarityOptions& options,
                                     int64_t block_entries)
    : options_(options),
      block_entries_(block_entries),
      a_(options.a_latents),
      b_(options.b_latents) {}

void FeatureSimilarity::Allocate() {
  if (HasProducts()) return;
  const int64_t pairs = options_.a_latents * options_.b_latents;
  options_.float64 ? wide_.resize(pairs) : narrow_.resize(pairs);
}

double FeatureSimilarity::Bytes(const FeatureSimilarityOptions& options) {
  const double pairs = static_cast<double>(options.a_latents) *
                       static_cast<double>(options.b_latents);
  return pairs * (options.float64 ? sizeof(double) : sizeof(float)) +
         2.0 * kBlockEntries *
             (sizeof(LatentEntry) + sizeof(TokenBlock::Place));
}

void FeatureSimilarity::Count(const SparseView& rows, Side* side) {
  for (int64_t i = 0; i < rows.entries(); ++i) {
    const double value = rows.values[i];
    if (!(value > 0)) continue;
    ++side->counts[rows.indices[i]];
    side->squares[rows.indices[i]] += value * value;
  }
  side->block.Append(rows);
}

absl::Status FeatureSimilarity::Add(const SparseView& a, const SparseView& b) {
  if (a.rows != b.rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("activations of ", a.rows, " and of ", b.rows,
                     " tokens; accepted: of the same tokens"));
  }
  Count(a, &a_);
  Count(b, &b_);
  tokens_ += a.rows;
  if (std::max({a_.block.entries(), b_.block.entries(), a_.block.tokens()}) >=
      block_entries_) {
    WorkOff();
  }
  return absl::OkStatus();
}

void FeatureSimilarity::WorkOff() {
  if (a_.block.tokens() == 0) return;
  Allocate();
  options_.float64 ? AddProducts(&wide_) : AddProducts(&narrow_);
  a_.block.Clear();
  b_.block.Clear();
}

// Row by row of the result, whose running sums then stay in a core's nearest
// cache, while the entries of the other dictionary's tokens stream through it.
template <typename T>
void FeatureSimilarity::AddProducts(std::vector<T>* products) {
  const TokenBlock::ByLatent turned = a_.block.Turn();
  const int64_t columns = options_.b_latents;
  const int64_t per_token =
      b_.block.entries() / std::max<int64_t>(b_.block.tokens(), 1);
  at::parallel_for(0, options_.a_latents, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(columns);
    for (int64_t i = begin; i < end; ++i) {
      T* const row = products->data() + i * columns;
      const int64_t first = turned.begins[i], last = turned.begins[i + 1];
      const bool few = (last - first) * per_token < columns / kFewParts;
      for (int64_t p = first; p < last; ++p) {
        if (p + kAhead < last) {
          Prefetch(b_.block, turned.places[p + kAhead].token);
        }
        const TokenBlock::Place place = turned.places[p];
        const float value = a_.block.Entry(place.entry).value;
        if (few) {
          AddScaled(b_.block, place.token, value, row);
          continue;
        }
        AddScaled(b_.block, place.token, value, scratch.data());
        if (p + 1 == last || (p + 1 - first) % kScratchTokens == 0) {
          Drain(&scratch, row);
        }
      }
    }
  });
}

absl::Status FeatureSimilarity::Merge(const FeatureSimilarity& other) {
  if (!(other.options_ == options_)) {
    return absl::InvalidArgumentError(
        "feature similarities of other options cannot be merged");
  }
  if (tokens_ + other.tokens_ > kMostTokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("feature similarities of ", tokens_ + other.tokens_,
                     " tokens; accepted: ", kMostTokens));
  }
  WorkOff();
  tokens_ += other.tokens_;
  for (auto [mine, its] :
       {std::make_pair(&a_, &other.a_), std::make_pair(&b_, &other.b_)}) {
    for (size_t i = 0; i < mine->counts.size(); ++i) {
      mine->counts[i] += its->counts[i];
      mine->squares[i] += its->squares[i];
    }
    mine->block.Append(its->block);
  }
  if (!other.HasProducts()) return absl::OkStatus();
  Allocate();
  for (size_t i = 0; i < narrow_.size(); ++i) narrow_[i] += other.narrow_[i];
  for (size_t i = 0; i < wide_.size(); ++i) wide_[i] += other.wide_[i];
  return absl::OkStatus();
}

absl::Status FeatureSimilarity::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(ToSaved(options_)));
  RETURN_IF_ERROR(state->AppendValue(tokens_));
  for (const Side* side : {&a_, &b_}) {
    RETURN_IF_ERROR(SaveVector(side->counts, state));
    RETURN_IF_ERROR(SaveVector(side->squares, state));
  }
  RETURN_IF_ERROR(state->AppendValue(int64_t{HasProducts()}));
  RETURN_IF_ERROR(SaveVector(narrow_, state));
  RETURN_IF_ERROR(SaveVector(wide_, state));
  RETURN_IF_ERROR(a_.block.Save(state));
  return b_.block.Save(state);
}

absl::Status FeatureSimilarity::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestorePart(state));
  return AtEnd(*state);
}

absl::Status FeatureSimilarity::RestorePart(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreSame(state, ToSaved(options_)));
  RETURN_IF_ERROR(state->ReadValue(&tokens_));
  RETURN_IF_ERROR(CheckTokens(tokens_));
  for (Side* side : {&a_, &b_}) {
    RETURN_IF_ERROR(RestoreVector(state, &side->counts));
    RETURN_IF_ERROR(RestoreVector(state, &side->squares));
    RETURN_IF_ERROR(CheckCounts(side->counts, tokens_));
    RETURN_IF_ERROR(CheckSums(side->squares));
  }
  int64_t has_products = 0;
  RETURN_IF_ERROR(state->ReadValue(&has_products));
  if (has_products != 0) Allocate();
  RETURN_IF_ERROR(RestoreVector(state, &narrow_));
  RETURN_IF_ERROR(RestoreVector(state, &wide_));
  RETURN_IF_ERROR(CheckSums(narrow_));
  RETURN_IF_ERROR(CheckSums(wide_));
  RETURN_IF_ERROR(a_.block.Restore(state));
  RETURN_IF_ERROR(b_.block.Restore(state));
  if (a_.block.tokens() != b_.block.tokens()) {
    return absl::DataLossError("the state's blocks are of different tokens");
  }
  return absl::OkStatus();
}

std::vector<bool> FeatureSimilarity::Dead(const Side& side) {
  std::vector<bool> dead;
  for (const int64_t count : side.counts) dead.push_back(count == 0);
  return dead;
}

std::vector<double> FeatureSimilarity::Norms(const Side& side) {
  std::vector<double> norms;
  for (const double square : side.squares) norms.push_back(std::sqrt(square));
  return norms;
}

at::Tensor FeatureSimilarity::Cosines() const {
  std::vector<int64_t> all(options_.a_latents);
  std::iota(all.begin(), all.end(), 0);
  return Cosines(all);
}

at::Tensor FeatureSimilarity::Cosines(absl::Span<const int64_t> latents) const {
  const int64_t rows = static_cast<int64_t>(latents.size());
  const int64_t columns = options_.b_latents;
  if (!HasProducts()) return at::zeros({rows, columns}, at::kFloat);
  const std::vector<double> a = NormsOfA(), b = NormsOfB();
  at::Tensor cosines = at::empty({rows, columns}, at::kFloat);
  float* const out = cosines.mutable_data_ptr<float>();
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = latents[i] * columns;
      for (int64_t j = 0; j < columns; ++j) {
        const double norms = a[latents[i]] * b[j];
        const double product =
            options_.float64 ? wide_[row + j] : double{narrow_[row + j]};
        out[i * columns + j] =
            norms > 0 ? static_cast<float>(product / norms) : 0;
      }
    }
  });
  return cosines;
}

FeatureSimilarity::Alike FeatureSimilarity::MostAlike(
    absl::Span<const int64_t> latents, int64_t m) const {
  const int64_t rows = static_cast<int64_t>(latents.size());
  const at::Tensor all = Cosines(latents);
  Alike alike{at::empty({rows, m}, at::kLong),
              at::empty({rows, m}, at::kFloat)};
  auto indices = alike.indices.accessor<int64_t, 2>();
  auto values = alike.values.accessor<float, 2>();
  std::vector<int64_t> order(options_.b_latents);
  for (int64_t i = 0; i < rows; ++i) {
    const float* const cosines =
        all.const_data_ptr<float>() + i * options_.b_latents;
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(
        order.begin(), order.begin() + m, order.end(),
        [cosines](int64_t a, int64_t b) {
          return cosines[a] != cosines[b] ? cosines[a] > cosines[b] : a < b;
        });
    for (int64_t k = 0; k < m; ++k) {
      indices[i][k] = order[k];
      values[i][k] = cosines[order[k]];
    }
  }
  return alike;
}

}  // namespace cupola::analysis
