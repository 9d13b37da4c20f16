#include "server/analysis/direction_ablation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/analysis/moved_latents.h"
#include "server/analysis/pair_samples.h"
#include "server/analysis/rows.h"
#include "server/analysis/sample_groups.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using storage::Array;
using storage::DType;
using Step = DirectionAblationOptions::Step;

// Samples whose moved activations exist at a time.
constexpr int64_t kChunkSamples = 4096;

absl::Status CheckActive(const at::Tensor& strengths,
                         const PairSamples& samples) {
  const at::Tensor idle = strengths.le(0).nonzero();
  if (idle.size(0) == 0) return absl::OkStatus();
  const int64_t i = idle[0][0].item<int64_t>();
  return absl::InvalidArgumentError(
      absl::StrCat("samples: in_latent ", samples.in[i].item<int64_t>(),
                   " is not active at row ", samples.token[i].item<int64_t>(),
                   " of its prompt; accepted with strength: a latent that is"));
}

}  // namespace

DirectionAblationAnalysis::DirectionAblationAnalysis(
    BridgeSource bridge, DirectionAblationOptions options, bool inputs)
    : bridge_(std::move(bridge)), options_(options), inputs_(inputs) {}

storage::Digest DirectionAblationAnalysis::Identity(
    const storage::Digest& bridge, const DirectionAblationOptions& options) {
  return storage::Hasher("direction-ablation/3")
      .AddDigest(bridge)
      .AddInt(static_cast<int64_t>(options.step))
      .AddInt(options.draw.count)
      .AddInt(static_cast<int64_t>(options.draw.seed))
      .AddDouble(options.on_line)
      .AddDouble(options.cluster_jacobian)
      .AddDouble(options.cluster_drop)
      .Finish();
}

std::set<model::HookPoint> DirectionAblationAnalysis::captures() const {
  if (inputs_) return {};
  return bridge_.Captures(/*reconstruction=*/false);
}

absl::StatusOr<std::vector<Array>> DirectionAblationAnalysis::RecordOf(
    const Pass& pass, const MlpBridge& bridge, const Sandwich& s,
    const at::Tensor& read, const at::Tensor& x,
    const Sequence& sequence) const {
  const PairSamples samples = SamplesOf(options_.draw, s, sequence);
  at::Tensor delta = samples.delta;
  if (options_.step == Step::kStrength) {
    delta = Strengths(s.in, samples);
    if (options_.draw.count == 0) RETURN_IF_ERROR(CheckActive(delta, samples));
  } else if (options_.step == Step::kUnit) {
    delta = at::ones({samples.token.size(0)}, x.options());
  }
  std::vector<at::Tensor> befores, afters, jacobians;
  ScreenCounts counts;
  for (int64_t from = 0; from < samples.size(); from += kChunkSamples) {
    RETURN_IF_ERROR(pass.poll());
    const int64_t count = std::min(kChunkSamples, samples.size() - from);
    ASSIGN_OR_RETURN(Moved moved, Move(pass, bridge, s, read, x,
                                       {samples.token.narrow(0, from, count),
                                        samples.in.narrow(0, from, count),
                                        samples.out.narrow(0, from, count),
                                        delta.narrow(0, from, count)},
                                       &counts));
    befores.push_back(std::move(moved.before));
    afters.push_back(std::move(moved.after));
    jacobians.push_back(std::move(moved.jacobian));
  }
  const auto joined = [&x](const std::vector<at::Tensor>& parts) {
    return parts.empty() ? at::empty({0}, x.options()) : at::cat(parts);
  };
  const at::Tensor before = joined(befores), after = joined(afters),
                   jacobian = joined(jacobians);

  const at::Tensor difference = after - before;
  const at::Tensor on_line =
      (delta * jacobian + difference).abs().lt(options_.on_line);
  const at::Tensor cluster = jacobian.lt(options_.cluster_jacobian) &
                             difference.lt(options_.cluster_drop);
  const at::Tensor kind =
      at::where(on_line, 0, at::where(cluster, 1, 2)).to(at::kInt);
  return std::vector<Array>{ToArray(samples.token, DType::kInt32),
                            ToArray(samples.in, DType::kInt32),
                            ToArray(samples.out, DType::kInt32),
                            ToArray(delta, DType::kFloat32),
                            ToArray(before, DType::kFloat32),
                            ToArray(after, DType::kFloat32),
                            ToArray(jacobian, DType::kFloat32),
                            ToArray(kind, DType::kInt32),
                            counts.ToArray()};
}

// read, x: the sequence's rows. samples: with their deltas.
absl::StatusOr<DirectionAblationAnalysis::Moved>
DirectionAblationAnalysis::Move(const Pass& pass, const MlpBridge& bridge,
                                const Sandwich& s, const at::Tensor& read,
                                const at::Tensor& x, const PairSamples& samples,
                                ScreenCounts* counts) const {
  const SampleGroups groups = GroupSamples(samples);
  ASSIGN_OR_RETURN(
      const at::Tensor moved,
      MovedOutputs(pass, bridge, *bridge_.in, read, x, groups.moves));
  const LatentReader reader(bridge, *bridge_.out);
  ASSIGN_OR_RETURN(
      const at::Tensor values,
      reader.Read(pass,
                  at::cat({moved, s.point.y.index_select(0, groups.token)}),
                  groups.tokens, counts));
  const at::Tensor after = groups.ValuesOf(samples, values).to(x.device());

  Sandwich each = s.Select(samples.token);
  const at::Tensor ones = at::ones_like(samples.delta).unsqueeze(1);
  const at::Tensor outs = samples.out.unsqueeze(1);
  each.in = {samples.in.unsqueeze(1), ones};
  each.out = {outs, ones};
  const at::Tensor jacobian = JacobianBlock(bridge, each).flatten();
  // The clean activations, once a token: of latents that are not active, 0.
  const at::Tensor slots = s.out.indices.index_select(0, samples.token);
  const at::Tensor before =
      (s.out.values.index_select(0, samples.token) * slots.eq(outs)).sum(1);
  return Moved{before, after, jacobian};
}

absl::StatusOr<std::vector<std::vector<Array>>> DirectionAblationAnalysis::Run(
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
    const at::Tensor mine =
        at::arange(begin, begin + count, all.in.indices.options());
    ASSIGN_OR_RETURN(
        std::vector<Array> record,
        RecordOf(pass, *bridge, all.Select(mine), read.index_select(0, mine),
                 x.index_select(0, mine), *placed.sequence));
    records.push_back(std::move(record));
    begin += count;
  }
  return records;
}

}  // namespace cupola::analysis
