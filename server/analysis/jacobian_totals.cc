#include "server/analysis/jacobian_totals.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ATen/Parallel.h"
#include "server/analysis/state_io.h"
#include "server/dictionary/vectorize.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// Parts of the output latents, for the threads.
constexpr int64_t kParts = 8;
constexpr int64_t kBlock = 512;

// |value|, and 0 for what is no number.
float SizeOf(float value) {
  const float size = std::fabs(value);
  return size > 0 ? size : 0;
}

// Of each |value| its bin: `last` from there on, last + 1 where it is 0.
CUPOLA_CLONES void FindBins(const float* values, int64_t n, double per_bin,
                            int32_t last, int32_t* bins) {
  for (int64_t i = 0; i < n; ++i) {
    const float size = SizeOf(values[i]);
    const double scaled = std::min(static_cast<double>(size) * per_bin,
                                   static_cast<double>(last));
    bins[i] = size > 0 ? static_cast<int32_t>(scaled) : last + 1;
  }
}

CUPOLA_CLONES void AddRun(const float* values, int64_t n, float* sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += SizeOf(values[i]);
}
CUPOLA_CLONES void AddRun(const float* values, int64_t n, double* sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += SizeOf(values[i]);
}
CUPOLA_CLONES void NoteRun(const float* values, int64_t n, float* largest,
                           uint32_t* counts) {
  for (int64_t i = 0; i < n; ++i) {
    const float size = SizeOf(values[i]);
    largest[i] = std::max(largest[i], size);
    counts[i] += size > 0 ? 1 : 0;
  }
}

// Whether `a` comes before `b` among the largest.
bool Before(const JacobianEntry& a, const JacobianEntry& b) {
  if (a.value != b.value) return a.value > b.value;
  return a.out != b.out ? a.out < b.out : a.in < b.in;
}

}  // namespace

JacobianTotals::JacobianTotals(const JacobianTotalsOptions& options)
    : options_(options),
      active_(options.d_out),
      histogram_(options.bins + 1),
      rows_(options.d_out) {}

double JacobianTotals::Bytes(const JacobianTotalsOptions& options,
                             double outputs) {
  const double of_pair = (options.float64 ? sizeof(double) : sizeof(float)) +
                         sizeof(float) + sizeof(uint32_t);
  return outputs * static_cast<double>(options.d_in) * of_pair;
}

JacobianTotals::Sums& JacobianTotals::At(int32_t out) {
  if (rows_[out] == nullptr) {
    rows_[out] = std::make_unique<Sums>();
    (options_.float64 ? rows_[out]->wide.resize(options_.d_in)
                      : rows_[out]->narrow.resize(options_.d_in));
    rows_[out]->largest.resize(options_.d_in);
    rows_[out]->counts.resize(options_.d_in);
  }
  return *rows_[out];
}

void JacobianTotals::Add(int64_t tokens, const std::vector<TokenRow>& rows) {
  tokens_ += tokens;
  // Each output latent belongs to one part, which adds its rows in order.
  std::vector<Histogram> histograms(kParts, Histogram(options_.bins + 2));
  at::parallel_for(0, kParts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      for (const TokenRow& row : rows) {
        if (row.out % kParts == part) AddRow(row, &histograms[part]);
      }
    }
  });
  for (const Histogram& histogram : histograms) {
    for (size_t bin = 0; bin < histogram_.size(); ++bin) {
      histogram_[bin] += histogram[bin];
    }
  }
}

void JacobianTotals::AddRow(const TokenRow& row, Histogram* histogram) {
  ++active_[row.out];
  Sums& sums = At(row.out);
  const double per_bin = static_cast<double>(options_.bins) / options_.bins_end;
  const auto last = static_cast<int32_t>(options_.bins);
  int32_t bins[kBlock];
  for (int64_t begin = 0; begin < row.count; begin += kBlock) {
    const int64_t n = std::min(kBlock, row.count - begin);
    const int32_t* const in = row.in + begin;
    const float* const values = row.values + begin;
    FindBins(values, n, per_bin, last, bins);
    // Most of a dense row's blocks have all latents from one on.
    if (row.ascending && in[n - 1] - in[0] == n - 1) {
      options_.float64 ? AddRun(values, n, sums.wide.data() + in[0])
                       : AddRun(values, n, sums.narrow.data() + in[0]);
      NoteRun(values, n, sums.largest.data() + in[0],
              sums.counts.data() + in[0]);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        if (in[i] < 0) bins[i] = last + 1;
        if (bins[i] > last) continue;
        const float size = std::fabs(values[i]);
        if (options_.float64) {
          sums.wide[in[i]] += size;
        } else {
          sums.narrow[in[i]] += size;
        }
        sums.largest[in[i]] = std::max(sums.largest[in[i]], size);
        ++sums.counts[in[i]];
      }
    }
    for (int64_t i = 0; i < n; ++i) ++(*histogram)[bins[i]];
  }
}

double JacobianTotals::Divisor(JacobianStatistic statistic,
                               JacobianDivisor divisor, int32_t out) const {
  if (statistic != JacobianStatistic::kMean) return 1;
  const int64_t by =
      divisor == JacobianDivisor::kTokens ? tokens_ : active_[out];
  return static_cast<double>(std::max<int64_t>(by, 1));
}

double JacobianTotals::Value(const Sums& sums, JacobianStatistic statistic,
                             double divisor, int64_t in) {
  switch (statistic) {
    case JacobianStatistic::kMax:
      return sums.largest[in];
    case JacobianStatistic::kCount:
      return sums.counts[in];
    default:
      return (sums.wide.empty() ? sums.narrow[in] : sums.wide[in]) / divisor;
  }
}

std::vector<int64_t> JacobianTotals::CountAbove(
    JacobianStatistic statistic, JacobianDivisor divisor,
    const std::vector<double>& thresholds) const {
  if (thresholds.empty()) return {};
  // In ascending order, a value is above a run of them from the first on.
  std::vector<double> sorted = thresholds;
  std::sort(sorted.begin(), sorted.end());
  std::vector<int64_t> between(sorted.size() + 1);
  for (int64_t out = 0; out < options_.d_out; ++out) {
    if (rows_[out] == nullptr) continue;
    const double by = Divisor(statistic, divisor, static_cast<int32_t>(out));
    for (int64_t in = 0; in < options_.d_in; ++in) {
      const double value = Value(*rows_[out], statistic, by, in);
      if (!(value > 0)) continue;
      ++between[std::lower_bound(sorted.begin(), sorted.end(), value) -
                sorted.begin()];
    }
  }
  // From here on: how many are above at least so many of the thresholds.
  for (size_t i = between.size() - 1; i > 0; --i) between[i - 1] += between[i];
  std::vector<int64_t> counts;
  for (double threshold : thresholds) {
    counts.push_back(
        between[std::upper_bound(sorted.begin(), sorted.end(), threshold) -
                sorted.begin()]);
  }
  return counts;
}

std::vector<JacobianEntry> JacobianTotals::Top(JacobianStatistic statistic,
                                               JacobianDivisor divisor,
                                               int64_t n) const {
  std::vector<JacobianEntry> heap;  // the smallest of the n largest on top
  for (int64_t out = 0; out < options_.d_out && n > 0; ++out) {
    if (rows_[out] == nullptr) continue;
    const double by = Divisor(statistic, divisor, static_cast<int32_t>(out));
    for (int64_t in = 0; in < options_.d_in; ++in) {
      const JacobianEntry entry{static_cast<int32_t>(out),
                                static_cast<int32_t>(in),
                                Value(*rows_[out], statistic, by, in)};
      if (!(entry.value > 0)) continue;
      if (static_cast<int64_t>(heap.size()) == n) {
        if (!Before(entry, heap.front())) continue;
        std::pop_heap(heap.begin(), heap.end(), Before);
        heap.pop_back();
      }
      heap.push_back(entry);
      std::push_heap(heap.begin(), heap.end(), Before);
    }
  }
  std::sort(heap.begin(), heap.end(), Before);
  return heap;
}

std::vector<double> JacobianTotals::Row(JacobianStatistic statistic,
                                        JacobianDivisor divisor,
                                        int32_t out) const {
  std::vector<double> values(options_.d_in);
  if (rows_[out] == nullptr) return values;
  const double by = Divisor(statistic, divisor, out);
  for (int64_t in = 0; in < options_.d_in; ++in) {
    values[in] = Value(*rows_[out], statistic, by, in);
  }
  return values;
}

std::vector<double> JacobianTotals::Column(JacobianStatistic statistic,
                                           JacobianDivisor divisor,
                                           int32_t in) const {
  std::vector<double> values(options_.d_out);
  for (int64_t out = 0; out < options_.d_out; ++out) {
    if (rows_[out] == nullptr) continue;
    const double by = Divisor(statistic, divisor, static_cast<int32_t>(out));
    values[out] = Value(*rows_[out], statistic, by, in);
  }
  return values;
}

absl::Status JacobianTotals::Merge(const JacobianTotals& other) {
  if (!(other.options_ == options_)) {
    return absl::InvalidArgumentError(
        "the Jacobians' totals are of other options");
  }
  const auto add = [](auto& sums, const auto& more) {
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
  };
  tokens_ += other.tokens_;
  add(active_, other.active_);
  add(histogram_, other.histogram_);
  for (int64_t out = 0; out < options_.d_out; ++out) {
    if (other.rows_[out] == nullptr) continue;
    const Sums& more = *other.rows_[out];
    Sums& sums = At(static_cast<int32_t>(out));
    add(sums.narrow, more.narrow);
    add(sums.wide, more.wide);
    add(sums.counts, more.counts);
    for (size_t i = 0; i < sums.largest.size(); ++i) {
      sums.largest[i] = std::max(sums.largest[i], more.largest[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status JacobianTotals::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(options_.d_out));
  RETURN_IF_ERROR(state->AppendValue(options_.d_in));
  RETURN_IF_ERROR(state->AppendValue(static_cast<uint8_t>(options_.float64)));
  RETURN_IF_ERROR(state->AppendValue(options_.bins));
  RETURN_IF_ERROR(state->AppendValue(options_.bins_end));
  RETURN_IF_ERROR(state->AppendValue(tokens_));
  RETURN_IF_ERROR(SaveVector(active_, state));
  RETURN_IF_ERROR(SaveVector(histogram_, state));
  const int64_t rows = std::count_if(rows_.begin(), rows_.end(),
                                     [](const auto& row) { return !!row; });
  RETURN_IF_ERROR(state->AppendValue(rows));
  for (int64_t out = 0; out < options_.d_out; ++out) {
    if (rows_[out] == nullptr) continue;
    RETURN_IF_ERROR(state->AppendValue(static_cast<int32_t>(out)));
    RETURN_IF_ERROR(SaveVector(rows_[out]->narrow, state));
    RETURN_IF_ERROR(SaveVector(rows_[out]->wide, state));
    RETURN_IF_ERROR(SaveVector(rows_[out]->largest, state));
    RETURN_IF_ERROR(SaveVector(rows_[out]->counts, state));
  }
  return absl::OkStatus();
}

absl::Status JacobianTotals::Restore(storage::StateReader* state) {
  JacobianTotalsOptions saved;
  uint8_t float64 = 0;
  int64_t rows = 0;
  RETURN_IF_ERROR(state->ReadValue(&saved.d_out));
  RETURN_IF_ERROR(state->ReadValue(&saved.d_in));
  RETURN_IF_ERROR(state->ReadValue(&float64));
  RETURN_IF_ERROR(state->ReadValue(&saved.bins));
  RETURN_IF_ERROR(state->ReadValue(&saved.bins_end));
  if (saved.d_out != options_.d_out || saved.d_in != options_.d_in ||
      (float64 != 0) != options_.float64 || saved.bins != options_.bins ||
      saved.bins_end != options_.bins_end) {
    return absl::DataLossError("the state is of Jacobians of other shapes");
  }
  RETURN_IF_ERROR(state->ReadValue(&tokens_));
  RETURN_IF_ERROR(RestoreVector(state, &active_));
  RETURN_IF_ERROR(RestoreVector(state, &histogram_));
  RETURN_IF_ERROR(CheckCounts(active_, tokens_));
  RETURN_IF_ERROR(CheckCounts(histogram_, std::numeric_limits<int64_t>::max()));
  RETURN_IF_ERROR(state->ReadValue(&rows));
  for (auto& row : rows_) row.reset();
  for (int64_t i = 0; i < rows; ++i) {
    int32_t out = 0;
    RETURN_IF_ERROR(state->ReadValue(&out));
    if (out < 0 || out >= options_.d_out || rows_[out] != nullptr) {
      return absl::DataLossError("the state has no such output latent");
    }
    Sums& sums = At(out);
    RETURN_IF_ERROR(RestoreVector(state, &sums.narrow));
    RETURN_IF_ERROR(RestoreVector(state, &sums.wide));
    RETURN_IF_ERROR(RestoreVector(state, &sums.largest));
    RETURN_IF_ERROR(RestoreVector(state, &sums.counts));
    RETURN_IF_ERROR(CheckSums(sums.narrow));
    RETURN_IF_ERROR(CheckSums(sums.wide));
    RETURN_IF_ERROR(CheckSums(sums.largest));
    RETURN_IF_ERROR(CheckCounts(sums.counts, tokens_));
  }
  return AtEnd(*state);
}

}  // namespace cupola::analysis
