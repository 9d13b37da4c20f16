#include "server/analysis/jacobian.h"

#include <algorithm>
#include <utility>

#include "server/analysis/jacobian_rows.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using storage::Array;
using storage::DType;

// Values that one chunk's gathered directions, or rows against all latents, may
// hold.
constexpr int64_t kChunkValues = int64_t{1} << 23;

Array Empty(DType dtype) { return {dtype, {0}, {}}; }

int64_t ChunkTokens(int64_t values_per_token) {
  return std::max<int64_t>(
      1, kChunkValues / std::max<int64_t>(1, values_per_token));
}

// `count` tokens from `begin` on.
at::Tensor Range(int64_t begin, int64_t count, const Sandwich& s) {
  return at::arange(begin, begin + count,
                    s.in.indices.options().dtype(at::kLong));
}

}  // namespace

JacobianAnalysis::JacobianAnalysis(BridgeSource bridge, JacobianOptions options,
                                   bool inputs, int64_t max_bytes)
    : bridge_(std::move(bridge)),
      options_(options),
      inputs_(inputs),
      max_bytes_(max_bytes) {}

storage::Digest JacobianAnalysis::Identity(const storage::Digest& bridge,
                                           const JacobianOptions& options) {
  return storage::Hasher("jacobian/1")
      .AddDigest(bridge)
      .AddInt(static_cast<int64_t>(options.mlp_input))
      .AddInt(static_cast<int64_t>(options.mask))
      .AddInt(options.all_inputs)
      .AddDouble(options.min_abs)
      .AddInt(options.top)
      .AddInt(options.block)
      .AddInt(options.second_order)
      .AddInt(options.mlp_output)
      .AddInt(options.gradients)
      .Finish();
}

std::set<model::HookPoint> JacobianAnalysis::captures() const {
  if (inputs_) return {};
  return bridge_.Captures(options_.mlp_input == MlpInput::kReconstruction);
}

absl::StatusOr<std::vector<Array>> JacobianAnalysis::RecordOf(
    const Pass& pass, const MlpBridge& bridge, const Sandwich& s) const {
  const int64_t n = s.in.rows(), k_in = s.in.width(), k_out = s.out.width();
  const double block = 4.0 * n * k_out * k_in;
  const double dense = (options_.block && !options_.all_inputs ? block : 0) +
                       (options_.second_order ? block : 0);
  if (dense > static_cast<double>(max_bytes_)) {
    return JacobianTooLarge(dense, max_bytes_);
  }
  const int64_t hidden = bridge.place().d_mlp;
  const int64_t d_sae = bridge_.in->d_sae();
  int64_t per_token = k_out * hidden + k_in * s.point.pre.size(1);
  if (options_.all_inputs) per_token += k_out * d_sae;
  const int64_t step = ChunkTokens(per_token);

  JacobianRowWriter rows(options_.min_abs, options_.top, max_bytes_);
  std::vector<at::Tensor> blocks, seconds;
  for (int64_t first = 0; first < n; first += step) {
    RETURN_IF_ERROR(pass.poll());
    const Sandwich part = s.Select(Range(first, std::min(step, n - first), s));
    if (options_.all_inputs) {
      RETURN_IF_ERROR(
          rows.Append(JacobianRows(bridge, part).reshape({-1, d_sae})));
    } else if (options_.block) {
      at::Tensor values = JacobianBlock(bridge, part);
      if (options_.min_abs > 0) {
        values.masked_fill_(values.abs().lt(options_.min_abs), 0);
      }
      blocks.push_back(values);
    }
    if (options_.second_order) {
      seconds.push_back(SecondOrderBlock(bridge, part));
    }
  }

  std::vector<Array> record(kFields, Empty(DType::kFloat32));
  record[kInLatents] = ToArray(s.in.indices, DType::kInt32);
  record[kInActs] = ToArray(s.in.values, DType::kFloat32);
  record[kOutLatents] = ToArray(s.out.indices, DType::kInt32);
  record[kOutActs] = ToArray(s.out.values, DType::kFloat32);
  record[kIndptr] = Empty(DType::kInt64);
  record[kIndices] = Empty(DType::kUInt32);
  const auto joined = [&](const std::vector<at::Tensor>& parts) {
    return ToArray(parts.empty() ? at::empty({0, k_out, k_in}) : at::cat(parts),
                   DType::kFloat32);
  };
  if (options_.all_inputs) {
    RowsOfJacobian whole = rows.Finish();
    record[kIndptr] = std::move(whole.indptr);
    record[kIndices] = std::move(whole.indices);
    record[kValues] = std::move(whole.values);
  } else if (options_.block) {
    record[kValues] = joined(blocks);
  }
  if (options_.second_order) record[kSecondOrder] = joined(seconds);
  if (options_.mlp_output) {
    record[kMlpOutput] = ToArray(s.point.mlp_out, DType::kFloat32);
  }
  if (options_.gradients) {
    record[kGradients] = ToArray(s.point.gradients, DType::kFloat32);
  }
  return record;
}

absl::StatusOr<std::vector<std::vector<Array>>> JacobianAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(const auto bridge, bridge_.Get(pass.model));
  RETURN_IF_ERROR(pass.poll());
  ASSIGN_OR_RETURN(const at::Tensor read,
                   GatherRows(pass, bridge_.place.read, sequences));
  at::Tensor x;
  if (options_.mlp_input == MlpInput::kOriginal) {
    ASSIGN_OR_RETURN(x, GatherRows(pass, bridge_.place.x, sequences));
  }
  ASSIGN_OR_RETURN(
      const Sandwich all,
      MakeSandwich(*bridge, pass.model, *bridge_.in, *bridge_.out, read, x,
                   options_.mlp_input, options_.mask, pass.poll));
  std::vector<std::vector<Array>> records;
  int64_t begin = 0;
  for (const Placed& placed : sequences) {
    const int64_t count = RowCount(*placed.sequence);
    Sandwich mine = all.Select(Range(begin, count, all));
    mine.in = mine.in.Rows(0, count);
    mine.out = mine.out.Rows(0, count);
    ASSIGN_OR_RETURN(std::vector<Array> record, RecordOf(pass, *bridge, mine));
    records.push_back(std::move(record));
    begin += count;
  }
  return records;
}

}  // namespace cupola::analysis
