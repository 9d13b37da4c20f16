#include "server/analysis/example_strata.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>

#include "server/analysis/state_io.h"
#include "server/analysis/token_hash.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

constexpr int32_t kNone = -1;  // half octaves of floats above 0 are not below 0

int32_t HalfOctave(float value) { return std::bit_cast<int32_t>(value) >> 22; }

uint64_t Hash(int64_t latent, const Example& example) {
  return MixBits(HashOfToken(example) + static_cast<uint64_t>(latent));
}

// The order in which examples are kept: empty places last.
bool Before(int64_t latent, const Example& a, const Example& b) {
  if (b.value == 0 || a.value == 0) return a.value != 0 && b.value == 0;
  return std::make_tuple(Hash(latent, a), a.row, a.position) <
         std::make_tuple(Hash(latent, b), b.row, b.position);
}

}  // namespace

ExampleStrata::ExampleStrata(int64_t latents, int64_t per_stratum)
    : latents_(latents),
      per_stratum_(per_stratum),
      highest_(latents, kNone),
      examples_(latents * (kStrata + 1) * per_stratum) {}

double ExampleStrata::Bytes(int64_t latents, int64_t per_stratum) {
  return static_cast<double>(latents) *
         (sizeof(int32_t) +
          static_cast<double>(per_stratum) * (kStrata + 1) * sizeof(Example));
}

void ExampleStrata::Insert(int64_t latent, int64_t stratum,
                           const Example& example) {
  Example* const first = Stratum(latent, stratum);
  int64_t place = per_stratum_ - 1;
  if (!Before(latent, example, first[place])) return;
  for (; place > 0 && Before(latent, example, first[place - 1]); --place) {
    first[place] = first[place - 1];
  }
  first[place] = example;
}

void ExampleStrata::Raise(int64_t latent, int32_t highest) {
  const int64_t by =
      highest_[latent] == kNone ? 0 : int64_t{highest} - highest_[latent];
  highest_[latent] = highest;
  const int64_t fallen = std::min(by, kStrata);
  for (int64_t stratum = 1; stratum <= fallen; ++stratum) {
    for (int64_t i = 0; i < per_stratum_; ++i) {
      const Example example = Stratum(latent, stratum)[i];
      if (example.value > 0) Insert(latent, 0, example);
    }
  }
  Example* const first = Stratum(latent, 1);
  Example* const end = first + kStrata * per_stratum_;
  std::fill(std::move(first + fallen * per_stratum_, end, first), end,
            Example{});
}

void ExampleStrata::Offer(int64_t latent, const Example& example) {
  if (per_stratum_ == 0) return;
  const int32_t half_octave = HalfOctave(example.value);
  if (half_octave > highest_[latent]) Raise(latent, half_octave);
  const int64_t stratum =
      kStrata - (int64_t{highest_[latent]} - int64_t{half_octave});
  Insert(latent, std::max<int64_t>(stratum, 0), example);
}

std::vector<Example> ExampleStrata::Draw(int64_t latent, double low,
                                         double high, int64_t n) const {
  std::vector<Example> inside;
  const auto first = examples_.begin() + latent * (kStrata + 1) * per_stratum_;
  std::copy_if(first, first + (kStrata + 1) * per_stratum_,
               std::back_inserter(inside), [=](const Example& example) {
                 return example.value > 0 && example.value >= low &&
                        example.value < high;
               });
  std::sort(inside.begin(), inside.end(),
            [latent](const Example& a, const Example& b) {
              return Before(latent, a, b);
            });
  if (static_cast<int64_t>(inside.size()) > n) inside.resize(n);
  return inside;
}

void ExampleStrata::Merge(const ExampleStrata& other) {
  const int64_t each = (kStrata + 1) * per_stratum_;
  for (int64_t latent = 0; latent < latents_ && each > 0; ++latent) {
    // First the maximum: the other's lowest stratum may hold what here would
    // still be a higher one.
    if (other.highest_[latent] > highest_[latent]) {
      Raise(latent, other.highest_[latent]);
    }
    for (int64_t i = latent * each; i < (latent + 1) * each; ++i) {
      if (other.examples_[i].value > 0) Offer(latent, other.examples_[i]);
    }
  }
}

absl::Status ExampleStrata::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(SaveVector(highest_, state));
  return SaveVector(examples_, state);
}

absl::Status ExampleStrata::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreVector(state, &highest_));
  RETURN_IF_ERROR(RestoreVector(state, &examples_));
  const auto damaged = [] {
    return absl::DataLossError("the state's samples are in no order");
  };
  for (size_t i = 0; i < examples_.size(); ++i) {
    const int64_t latent = i / ((kStrata + 1) * per_stratum_);
    const int64_t stratum = i / per_stratum_ % (kStrata + 1);
    const Example& example = examples_[i];
    const bool empty = example == Example{};
    const bool follows = i % per_stratum_ > 0;
    if (follows && !Before(latent, examples_[i - 1], example) &&
        !(empty && examples_[i - 1] == Example{})) {
      return damaged();
    }
    if (empty) continue;
    if (!std::isfinite(example.value) || !(example.value > 0)) return damaged();
    const int64_t place = kStrata - (int64_t{highest_[latent]} -
                                     int64_t{HalfOctave(example.value)});
    if (std::max<int64_t>(place, 0) != stratum) return damaged();
  }
  return absl::OkStatus();
}

}  // namespace cupola::analysis
