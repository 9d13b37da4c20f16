#include "server/analysis/strength_sweep.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/curve_class.h"
#include "server/analysis/moved_latents.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using storage::Array;
using storage::DType;

// Values of x along the sweeps that are held at a time.
constexpr int64_t kChunkValues = int64_t{1} << 24;
// Output values that the sweeps of one sequence may have.
constexpr double kMaxValues = int64_t{1} << 26;

// Samples that move one latent at one token share their sweep: `first` [u] is
// one of each, `group` [s] tells each sample's, `slot` [s] its place there.
struct Shared {
  at::Tensor first, group, slot;  // int64
  int64_t widest = 1;
};

Shared ShareSweeps(const PairSamples& samples) {
  const at::Tensor token = samples.token.cpu(), in = samples.in.cpu();
  std::map<std::pair<int64_t, int64_t>, int64_t> groups;
  std::vector<int64_t> first, group, slot, sizes;
  for (int64_t i = 0; i < samples.size(); ++i) {
    const std::pair<int64_t, int64_t> key = {token.const_data_ptr<int64_t>()[i],
                                             in.const_data_ptr<int64_t>()[i]};
    const auto [found, added] =
        groups.emplace(key, static_cast<int64_t>(first.size()));
    if (added) {
      first.push_back(i);
      sizes.push_back(0);
    }
    group.push_back(found->second);
    slot.push_back(sizes[found->second]++);
  }
  const at::Device device = samples.token.device();
  Shared shared = {at::tensor(first, at::kLong).to(device),
                   at::tensor(group, at::kLong).to(device),
                   at::tensor(slot, at::kLong).to(device)};
  for (int64_t size : sizes) shared.widest = std::max(shared.widest, size);
  return shared;
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
  storage::Hasher hasher("sweep/1");
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
    const at::Tensor& grid) const {
  const int64_t points = grid.size(1);
  const Shared shared = ShareSweeps(samples);
  const int64_t sweeps = shared.first.size(0);
  if (sweeps == 0) return at::empty({0, points}, x.options());
  const double values = static_cast<double>(points) *
                        std::max(static_cast<double>(samples.size()),
                                 static_cast<double>(sweeps) * shared.widest);
  if (values > kMaxValues) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the sweeps of a prompt's samples evaluate ", values,
                     " output values; accepted: ", kMaxValues,
                     ": ask for fewer samples or points"));
  }
  at::Tensor latents =
      at::zeros({sweeps, shared.widest}, samples.out.options());
  latents.index_put_({shared.group, shared.slot}, samples.out);
  std::vector<at::Tensor> parts;
  const int64_t step =
      std::max<int64_t>(1, kChunkValues / (points * x.size(1)));
  for (int64_t from = 0; from < sweeps; from += step) {
    const int64_t count = std::min(step, sweeps - from);
    const at::Tensor some = shared.first.narrow(0, from, count);
    const at::Tensor tokens = samples.token.index_select(0, some);
    const at::Tensor direction =
        DirectionsOf(bridge, *bridge_.in, read.index_select(0, tokens),
                     samples.in.index_select(0, some));
    // [count, points, d]: from the strength the token has to the grid's.
    const at::Tensor moves = grid.index_select(0, some) -
                             strengths.index_select(0, some).unsqueeze(1);
    const at::Tensor moved = x.index_select(0, tokens).unsqueeze(1) +
                             moves.unsqueeze(2) * direction.unsqueeze(1);
    ASSIGN_OR_RETURN(
        const at::Tensor values,
        ActivationsAt(
            pass, bridge, *bridge_.out, moved.flatten(0, 1),
            latents.narrow(0, from, count).repeat_interleave(points, 0)));
    parts.push_back(values.view({count, points, shared.widest}));
  }
  return at::cat(parts).transpose(1, 2).index({shared.group, shared.slot});
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
    ASSIGN_OR_RETURN(
        const at::Tensor curves,
        Curves(pass, *bridge, samples, read.narrow(0, begin, count),
               x.narrow(0, begin, count), strengths, grid));
    begin += count;
    records.push_back(RecordOf(samples, strengths, grid, curves));
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
