#include "server/analysis/strength_sweep.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/curve_class.h"
#include "server/analysis/line_distance.h"
#include "server/analysis/moved_latents.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using storage::Array;
using storage::DType;

// Points, and values read at them, that are held at a time.
constexpr int64_t kChunkPoints = 4096;
constexpr int64_t kChunkValues = int64_t{1} << 24;
// Output values that the sweeps of one sequence may have.
constexpr double kMaxValues = int64_t{1} << 26;
// Between anchors a sweep bends by no more than this, in units of what a random
// direction sees of a row; anchors are so many points apart at least.
constexpr float kBend = 0.3f;
constexpr int64_t kClosest = 4;

// Samples that move one latent at one token share their sweep.
struct Shared {
  std::vector<int64_t> first;                 // of each sweep, one sample
  std::vector<std::vector<int32_t>> latents;  // that are read, ascending
  std::vector<int64_t> sweep;                 // of each sample
  std::vector<int64_t> out;                   // each sample's output latent
  int64_t widest = 1;
};

Shared ShareSweeps(const PairSamples& samples) {
  const at::Tensor token = samples.token.cpu(), in = samples.in.cpu(),
                   out = samples.out.cpu();
  std::map<std::pair<int64_t, int64_t>, int64_t> sweeps;
  Shared shared;
  for (int64_t i = 0; i < samples.size(); ++i) {
    const std::pair<int64_t, int64_t> key = {token.const_data_ptr<int64_t>()[i],
                                             in.const_data_ptr<int64_t>()[i]};
    const auto [found, added] =
        sweeps.emplace(key, static_cast<int64_t>(shared.first.size()));
    if (added) {
      shared.first.push_back(i);
      shared.latents.emplace_back();
    }
    shared.sweep.push_back(found->second);
    shared.out.push_back(out.const_data_ptr<int64_t>()[i]);
    shared.latents[found->second].push_back(
        static_cast<int32_t>(shared.out.back()));
  }
  for (std::vector<int32_t>& latents : shared.latents) {
    std::sort(latents.begin(), latents.end());
    latents.erase(std::unique(latents.begin(), latents.end()), latents.end());
    shared.widest =
        std::max(shared.widest, static_cast<int64_t>(latents.size()));
  }
  return shared;
}

// The points of sweeps [from, from + count) as segments between anchors. rows:
// their outputs, float32 [count * points, d].
std::vector<ScreenedSegment> Segments(const Shared& shared, int64_t from,
                                      int64_t count, const at::Tensor& rows) {
  const int64_t points = rows.size(0) / count, d = rows.size(1);
  const at::Tensor host = rows.cpu();
  const float* const data = host.const_data_ptr<float>();
  const float share = kBend / std::sqrt(static_cast<float>(d));
  std::vector<std::vector<int64_t>> splits(count);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      splits[i] = SplitCurve(data + i * points * d, points, d, share, kClosest);
    }
  });
  std::vector<ScreenedSegment> segments;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<int64_t>& split = splits[i];
    const int64_t first = i * points;
    // A segment begins with its first anchor; the last one has both.
    for (size_t k = 0; k + 1 < std::max<size_t>(split.size(), 2); ++k) {
      const bool last = k + 2 >= split.size();
      const int64_t end = split[std::min(k + 1, split.size() - 1)];
      segments.push_back({first + split[k], first + end + (last ? 1 : 0),
                          first + split[k], first + end,
                          shared.latents[from + i]});
    }
  }
  return segments;
}

// The strengths of each sample's sweep: [s, points].
at::Tensor Grid(const SweepOptions& options, const at::Tensor& strengths) {
  if (!options.grid.empty()) {
    return at::tensor(options.grid, at::kFloat)
        .to(strengths.device())
        .expand({strengths.size(0), options.length()});
  }
  const at::Tensor last = (strengths + 1).clamp_min(5);
  const at::Tensor unit =
      at::linspace(0, 1, options.points, strengths.options());
  return last.unsqueeze(1) * unit;
}

}  // namespace

SweepAnalysis::SweepAnalysis(BridgeSource bridge, SweepOptions options,
                             bool inputs)
    : bridge_(std::move(bridge)),
      options_(std::move(options)),
      inputs_(inputs) {}

storage::Digest SweepAnalysis::Identity(const storage::Digest& bridge,
                                        const SweepOptions& options) {
  storage::Hasher hasher("sweep/3");
  hasher.AddDigest(bridge)
      .AddInt(options.points)
      .AddInt(options.draw.count)
      .AddInt(static_cast<int64_t>(options.draw.seed))
      .AddDouble(options.tolerance)
      .AddInt(options.published)
      .AddInt(options.curves)
      .AddInt(static_cast<int64_t>(options.grid.size()));
  for (float strength : options.grid) hasher.AddDouble(strength);
  return hasher.Finish();
}

std::set<model::HookPoint> SweepAnalysis::captures() const {
  if (inputs_) return {};
  return bridge_.Captures(/*reconstruction=*/false);
}

// The output latents' curves along the sweeps, [s, points]. read, x: the
// sequence's rows.
absl::StatusOr<at::Tensor> SweepAnalysis::Curves(
    const Pass& pass, const MlpBridge& bridge, const PairSamples& samples,
    const at::Tensor& read, const at::Tensor& x, const at::Tensor& strengths,
    const at::Tensor& grid, ScreenCounts* counts) const {
  const int64_t points = grid.size(1);
  const Shared shared = ShareSweeps(samples);
  const auto sweeps = static_cast<int64_t>(shared.first.size());
  const double values = static_cast<double>(points) *
                        std::max(static_cast<double>(samples.size()),
                                 static_cast<double>(sweeps) * shared.widest);
  if (values > kMaxValues) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the sweeps of a prompt's samples evaluate ", values,
                     " output values; accepted: ", kMaxValues,
                     ": ask for fewer samples or points"));
  }
  const at::Tensor firsts =
      at::tensor(shared.first, at::kLong).to(samples.token.device());
  const LatentReader reader(bridge, *bridge_.out);
  // Of each sweep, its points' values of its latents: [points, latents].
  std::vector<at::Tensor> of_sweeps(sweeps);
  const int64_t step = std::max<int64_t>(
      1, std::min(kChunkPoints, kChunkValues / shared.widest) / points);
  for (int64_t from = 0; from < sweeps; from += step) {
    const int64_t count = std::min(step, sweeps - from);
    const at::Tensor some = firsts.narrow(0, from, count);
    // From the strength the token has to the grid's.
    const at::Tensor amounts = grid.index_select(0, some) -
                               strengths.index_select(0, some).unsqueeze(1);
    ASSIGN_OR_RETURN(const at::Tensor rows,
                     MovedOutputs(pass, bridge, *bridge_.in, read, x,
                                  {samples.token.index_select(0, some),
                                   samples.in.index_select(0, some), amounts}));
    ASSIGN_OR_RETURN(
        const at::Tensor flat,
        reader.Read(pass, rows, Segments(shared, from, count, rows), counts));
    int64_t at = 0;
    for (int64_t i = from; i < from + count; ++i) {
      const auto width = static_cast<int64_t>(shared.latents[i].size());
      of_sweeps[i] = flat.narrow(0, at, points * width).view({points, width});
      at += points * width;
    }
  }
  at::Tensor curves = at::empty({samples.size(), points}, at::kFloat);
  for (int64_t i = 0; i < samples.size(); ++i) {
    const std::vector<int32_t>& latents = shared.latents[shared.sweep[i]];
    const int64_t place =
        std::lower_bound(latents.begin(), latents.end(), shared.out[i]) -
        latents.begin();
    const auto width = static_cast<int64_t>(latents.size());
    const float* from =
        of_sweeps[shared.sweep[i]].const_data_ptr<float>() + place;
    float* to = curves.mutable_data_ptr<float>() + i * points;
    for (int64_t p = 0; p < points; ++p) to[p] = from[p * width];
  }
  return curves.to(x.device());
}

absl::StatusOr<std::vector<std::vector<Array>>> SweepAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(const auto bridge, bridge_.Get(pass.model));
  ASSIGN_OR_RETURN(at::Tensor read,
                   GatherRows(pass, bridge_.place.read, sequences));
  ASSIGN_OR_RETURN(at::Tensor x, GatherRows(pass, bridge_.place.x, sequences));
  read = read.to(at::kFloat);
  x = x.to(at::kFloat);
  ASSIGN_OR_RETURN(
      const Sandwich all,
      MakeSandwich(*bridge, pass.model, *bridge_.in, *bridge_.out, read, x,
                   MlpInput::kOriginal, LatentMask::kSlots, pass.poll));
  std::vector<std::vector<Array>> records;
  int64_t begin = 0;
  for (const Placed& placed : sequences) {
    const int64_t count = RowCount(*placed.sequence);
    const Sandwich mine =
        all.Select(at::arange(begin, begin + count, all.in.indices.options()));
    const PairSamples samples =
        SamplesOf(options_.draw, mine, *placed.sequence);
    const at::Tensor strengths = Strengths(mine.in, samples);
    const at::Tensor grid = Grid(options_, strengths);  // [s, points]
    ScreenCounts counts;
    ASSIGN_OR_RETURN(
        const at::Tensor curves,
        Curves(pass, *bridge, samples, read.narrow(0, begin, count),
               x.narrow(0, begin, count), strengths, grid, &counts));
    begin += count;
    records.push_back(RecordOf(samples, strengths, grid, curves));
    records.back().push_back(counts.ToArray());
  }
  return records;
}

std::vector<Array> SweepAnalysis::RecordOf(const PairSamples& samples,
                                           const at::Tensor& strengths,
                                           const at::Tensor& grid,
                                           const at::Tensor& curves) const {
  const CurveFits fits =
      ClassifyCurves(grid, curves, options_.tolerance, options_.published);
  const auto floats = [](const at::Tensor& tensor) {
    return ToArray(tensor, DType::kFloat32);
  };
  return {ToArray(samples.token, DType::kInt32),
          ToArray(samples.in, DType::kInt32),
          ToArray(samples.out, DType::kInt32),
          floats(strengths),
          floats(grid.select(1, grid.size(1) - 1)),
          ToArray(fits.kind, DType::kInt32),
          floats(fits.slope),
          floats(fits.intercept),
          floats(fits.zero_first),
          floats(fits.zero_last),
          options_.curves ? floats(curves) : Array{DType::kFloat32, {0}, {}}};
}

}  // namespace cupola::analysis
