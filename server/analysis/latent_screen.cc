#include "server/analysis/latent_screen.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include "ATen/Parallel.h"
#include "server/analysis/encoder_input.h"
#include "server/analysis/line_distance.h"
#include "server/analysis/row_products.h"
#include "server/dictionary/selection.h"
#include "server/dictionary/vectorize.h"
#include "server/dictionary/weights.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::Architecture;

// Anchors whose pre-activations exist at a time, and rows of a segment that is
// computed whole.
constexpr int64_t kChunkValues = int64_t{1} << 21;
constexpr int64_t kMinChunkRows = 16;
// Where more than one in so many latents is left, computing all is faster.
constexpr int64_t kMaxShare = 16;

// Which latents can reach `floor`: ascending, at most `most` + 16 of them.
CUPOLA_CLONES int64_t Reaching(const float* first, const float* last,
                               const float* lengths, float radius, float margin,
                               float floor, int64_t n, int64_t most,
                               int32_t* found) {
  constexpr int64_t kLanes = 16;
  int64_t count = 0;
  for (int64_t begin = 0; begin < n && count <= most; begin += kLanes) {
    const int64_t size = std::min(kLanes, n - begin);
    int any = 0;
    float bound[kLanes];
    for (int64_t i = 0; i < size; ++i) {
      const float a = first[begin + i], b = last[begin + i];
      bound[i] = (a > b ? a : b) + radius * lengths[begin + i] + margin;
      any |= !(bound[i] < floor);
    }
    if (any == 0) continue;
    for (int64_t i = 0; i < size; ++i) {
      found[count] = static_cast<int32_t>(begin + i);
      count += !(bound[i] < floor);
    }
  }
  return count;
}

// products: [latents, rows].
void AddBias(const float* bias, const std::vector<int32_t>& latents,
             int64_t rows, float* products) {
  if (bias == nullptr) return;
  for (int32_t latent : latents) {
    for (int64_t r = 0; r < rows; ++r) *products++ += bias[latent];
  }
}

}  // namespace

ScreenCounts& ScreenCounts::operator+=(const ScreenCounts& other) {
  whole += other.whole;
  computed += other.computed;
  return *this;
}

storage::Array ScreenCounts::ToArray() const {
  storage::Array array = {storage::DType::kInt64, {2}, {}};
  array.bytes.append(reinterpret_cast<const char*>(&whole), sizeof(whole));
  array.bytes.append(reinterpret_cast<const char*>(&computed),
                     sizeof(computed));
  return array;
}

ScreenCounts ScreenCounts::FromArray(const storage::Array& array) {
  ScreenCounts counts;
  std::memcpy(&counts.whole, array.bytes.data(), sizeof(whole));
  std::memcpy(&counts.computed, array.bytes.data() + sizeof(whole),
              sizeof(computed));
  return counts;
}

double ScreenCounts::SkippedShare() const {
  if (whole <= computed) return 0;
  return 1 - static_cast<double>(computed) / static_cast<double>(whole);
}

// A chunk's anchors.
struct LatentScreen::Anchors {
  std::map<int64_t, int64_t> places;  // of rows in `pre`
  at::Tensor pre;                     // [anchors, d_sae]
  const float* of(int64_t row) const {
    return pre.const_data_ptr<float>() + places.at(row) * pre.size(1);
  }
};

struct LatentScreen::Scratch {
  dictionary::SelectionScratch selection;
  std::vector<int32_t> leading, reaching, picked, places;
  std::vector<const float*> rows, columns;
  std::vector<float> products, competing;
  std::vector<char> wins;
  int64_t computed = 0;
};

bool LatentScreen::Serves(const dictionary::Dictionary& dictionary) {
  return dictionary.manifest().architecture == Architecture::kTopK &&
         dictionary.device().is_cpu() &&
         dictionary.weights().W_dec.scalar_type() == at::kFloat;
}

LatentScreen::LatentScreen(const dictionary::Dictionary& dictionary,
                           at::Tensor columns)
    : dictionary_(dictionary),
      columns_(std::move(columns)),
      // A sum of squares loses at most d 2^-24 of itself.
      lengths_(columns_.norm(2, /*dim=*/1).mul_(1 + 0x1p-12)),
      bias_(nullptr),
      d_in_(dictionary.d_in()),
      d_sae_(dictionary.d_sae()),
      k_(std::min(dictionary.manifest().k, dictionary.d_sae())) {
  const at::Tensor& bias = dictionary.weights().encoder.bias();
  if (!bias.defined()) return;
  bias_ = bias.const_data_ptr<float>();
  largest_bias_ = bias.abs().max().item<float>();
}

bool LatentScreen::Screen(const ScreenedSegment& segment, const float* input,
                          const Anchors& anchors, Scratch* s,
                          float* values) const {
  const int64_t rows = segment.end - segment.begin;
  const float* const first = anchors.of(segment.first);
  const float* const last = anchors.of(segment.last);
  const float* const e_first = input + segment.first * d_in_;
  const float* const e_last = input + segment.last * d_in_;
  float distance = 0;
  float length = std::max(Length(e_first, d_in_), Length(e_last, d_in_));
  s->rows.clear();
  for (int64_t r = segment.begin; r < segment.end; ++r) {
    const float* const row = input + r * d_in_;
    s->rows.push_back(row);
    distance = std::max(distance, LineDistance(row, e_first, e_last, d_in_));
    length = std::max(length, Length(row, d_in_));
  }
  const auto multiply = [&](const std::vector<int32_t>& latents) {
    s->columns.clear();
    for (int32_t latent : latents) {
      s->columns.push_back(columns_.const_data_ptr<float>() + latent * d_in_);
    }
    const auto count = static_cast<int64_t>(latents.size());
    s->products.resize(count * rows);
    MultiplyRows(s->columns.data(), count, s->rows.data(), rows, d_in_,
                 s->products.data(), rows);
    AddBias(bias_, latents, rows, s->products.data());
    s->computed += count * rows;
  };

  s->leading.clear();
  dictionary::SelectTopK(first, d_sae_, k_,
                         -std::numeric_limits<float>::infinity(), &s->selection,
                         &s->leading);
  if (static_cast<int64_t>(s->leading.size()) < k_) return false;  // NaN
  multiply(s->leading);
  const float floor =
      std::max(*std::min_element(s->products.begin(), s->products.end()), 0.0f);

  const double unit = 0x1p-24;
  const double radius =
      (1 + 0x1p-12) * distance +
      (3 * 0x1p-16 + (4.0 * static_cast<double>(d_in_) + 256) * unit) * length;
  const int64_t most = d_sae_ / kMaxShare;
  s->reaching.resize(most + 64);
  const int64_t found = Reaching(first, last, lengths_.const_data_ptr<float>(),
                                 static_cast<float>(radius * (1 + 4 * unit)),
                                 static_cast<float>(8 * unit * largest_bias_),
                                 floor, d_sae_, most, s->reaching.data());
  if (found > most) return false;
  s->reaching.resize(found);
  multiply(s->reaching);

  // Where each latent that is read competes, -1: nowhere.
  s->places.clear();
  for (int32_t latent : segment.latents) {
    const auto at =
        std::lower_bound(s->reaching.begin(), s->reaching.end(), latent);
    s->places.push_back(at != s->reaching.end() && *at == latent
                            ? static_cast<int32_t>(at - s->reaching.begin())
                            : -1);
  }
  s->competing.resize(found);
  s->wins.resize(found);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < found; ++i) {
      s->competing[i] = s->products[i * rows + r];
    }
    s->picked.clear();
    dictionary::SelectTopK(s->competing.data(), found, k_, 0, &s->selection,
                           &s->picked);
    std::fill(s->wins.begin(), s->wins.end(), 0);
    for (int32_t i : s->picked) s->wins[i] = 1;
    for (int32_t place : s->places) {
      *values++ = place >= 0 && s->wins[place] ? s->competing[place] : 0.0f;
    }
  }
  return true;
}

absl::Status LatentScreen::ComputeWhole(
    const std::vector<Whole>& segments, const at::Tensor& input,
    const std::function<absl::Status()>& poll) const {
  std::vector<int64_t> rows;
  std::vector<std::pair<const ScreenedSegment*, float*>> places;  // of a row
  for (const auto& [segment, values] : segments) {
    const auto width = static_cast<int64_t>(segment->latents.size());
    for (int64_t row = segment->begin; row < segment->end; ++row) {
      places.emplace_back(segment, values + (row - segment->begin) * width);
      rows.push_back(row);
    }
  }
  const at::Tensor index = at::tensor(rows, at::kLong);
  const auto all = static_cast<int64_t>(rows.size());
  const int64_t step = std::max(kMinChunkRows, kChunkValues / d_sae_);
  for (int64_t first = 0; first < all; first += step) {
    RETURN_IF_ERROR(poll());
    const int64_t count = std::min(step, all - first);
    const at::Tensor pre = dictionary_.weights().encoder(
        input.index_select(0, index.narrow(0, first, count)));
    const float* const data = pre.const_data_ptr<float>();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      dictionary::SelectionScratch scratch;
      std::vector<int32_t> picked;
      for (int64_t r = begin; r < end; ++r) {
        picked.clear();
        const float* const row = data + r * d_sae_;
        dictionary::SelectTopK(row, d_sae_, k_, 0, &scratch, &picked);
        const auto& [segment, values] = places[first + r];
        float* to = values;
        for (int32_t latent : segment->latents) {
          const bool wins =
              std::binary_search(picked.begin(), picked.end(), latent);
          *to++ = wins ? row[latent] : 0.0f;
        }
      }
    });
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> LatentScreen::Activations(
    const at::Tensor& x, const std::vector<ScreenedSegment>& segments,
    const std::function<absl::Status()>& poll, ScreenCounts* counts) const {
  ASSIGN_OR_RETURN(const at::Tensor input, EncoderInput(dictionary_, x));
  std::vector<int64_t> offsets = {0};
  for (const ScreenedSegment& segment : segments) {
    offsets.push_back(offsets.back() +
                      (segment.end - segment.begin) *
                          static_cast<int64_t>(segment.latents.size()));
  }
  at::Tensor values = at::empty({offsets.back()}, input.options());
  float* const to = values.mutable_data_ptr<float>();
  const float* const rows = input.const_data_ptr<float>();
  const auto most =
      static_cast<size_t>(std::max(kMinChunkRows, kChunkValues / d_sae_));
  std::vector<Whole> left;
  // Anchors would cost a segment of so few rows as much as they spare.
  const auto few = [](const ScreenedSegment& segment) {
    return segment.end - segment.begin <= (segment.first != segment.last) + 1;
  };
  for (size_t begin = 0; begin < segments.size();) {
    RETURN_IF_ERROR(poll());
    Anchors anchors;
    std::vector<int64_t> which;
    size_t end = begin;
    for (; end < segments.size() && which.size() + 1 < most; ++end) {
      if (few(segments[end])) continue;
      for (int64_t row : {segments[end].first, segments[end].last}) {
        if (anchors.places.emplace(row, which.size()).second) {
          which.push_back(row);
        }
      }
    }
    if (!which.empty()) {
      anchors.pre = dictionary_.weights()
                        .encoder(input.index_select(0, at::tensor(which)))
                        .contiguous();
    }
    std::vector<char> whole(end - begin);
    std::vector<int64_t> computed(end - begin);
    at::parallel_for(0, static_cast<int64_t>(end - begin), 1,
                     [&](int64_t from, int64_t until) {
                       Scratch scratch;
                       for (int64_t i = from; i < until; ++i) {
                         const ScreenedSegment& segment = segments[begin + i];
                         scratch.computed = 0;
                         whole[i] = few(segment) ||
                                    !Screen(segment, rows, anchors, &scratch,
                                            to + offsets[begin + i]);
                         computed[i] = scratch.computed;
                       }
                     });
    counts->computed += static_cast<int64_t>(which.size()) * d_sae_;
    for (size_t i = 0; i < whole.size(); ++i) {
      const ScreenedSegment& segment = segments[begin + i];
      const int64_t all = (segment.end - segment.begin) * d_sae_;
      counts->whole += all;
      counts->computed += computed[i] + (whole[i] != 0 ? all : 0);
      if (whole[i] != 0) left.push_back({&segment, to + offsets[begin + i]});
    }
    begin = end;
  }
  RETURN_IF_ERROR(ComputeWhole(left, input, poll));
  return values;
}

}  // namespace cupola::analysis
