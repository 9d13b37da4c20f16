#include "server/analysis/midcoder_statistics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/accumulator.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::analysis {
namespace {

static_assert(Accumulator<MidcoderStatistics>);

// In the order of Names.
std::vector<std::vector<int64_t>> Shapes(const MidcoderSizes& sizes) {
  const int64_t f = sizes.features, n = sizes.neurons, d = sizes.width;
  return {{f, n}, {f, n}, {f}, {f}, {f},    {f, f}, {f, f}, {f, n}, {n},   {n},
          {n},    {},     {n}, {n}, {f, n}, {n, n}, {d},    {f, d}, {d, d}};
}

absl::Status CheckShape(const char* name, const at::Tensor& value,
                        int64_t tokens, int64_t columns) {
  if (value.dim() == 2 && value.size(0) == tokens && value.size(1) == columns &&
      value.scalar_type() == at::kFloat) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", at::toString(value.scalar_type()), " [",
                   absl::StrJoin(value.sizes(), ", "), "]; accepted: float32 [",
                   tokens, ", ", columns, "]"));
}

}  // namespace

const std::array<absl::string_view, MidcoderStatistics::kSums>&
MidcoderStatistics::Names() {
  static constexpr std::array<absl::string_view, kSums> kNames = {
      "act_gate_sum",     "act_sq_gate_sum",   "act_sum",
      "act_sq_sum",       "act_counts",        "act_cov_sum",
      "act_cov_counts",   "gate_act_counts",   "gate_counts",
      "mid_sum",          "gate_mid_sum",      "counts",
      "pre_relu_sum",     "pre_relu_cube_sum", "pre_relu_sum_no_act",
      "pre_relu_cov_sum", "mlp_out_sum",       "mlp_out_sum_no_act",
      "mlp_out_cov_sum"};
  return kNames;
}

MidcoderStatistics::MidcoderStatistics(const MidcoderSizes& sizes)
    : sizes_(sizes) {
  for (const auto& shape : Shapes(sizes)) {
    sums_.push_back(at::zeros(shape, at::kDouble));
  }
}

double MidcoderStatistics::Bytes(const MidcoderSizes& sizes) {
  double elements = 0;
  for (const auto& shape : Shapes(sizes)) {
    double product = 1;
    for (const int64_t size : shape) product *= static_cast<double>(size);
    elements += product;
  }
  return elements * sizeof(double);
}

absl::Status MidcoderStatistics::Add(const MidcoderValues& values) {
  const int64_t tokens = values.acts.dim() == 2 ? values.acts.size(0) : 0;
  RETURN_IF_ERROR(CheckShape("acts", values.acts, tokens, sizes_.features));
  RETURN_IF_ERROR(CheckShape("mid", values.mid, tokens, sizes_.neurons));
  RETURN_IF_ERROR(
      CheckShape("pre_relu", values.pre_relu, tokens, sizes_.neurons));
  RETURN_IF_ERROR(CheckShape("mlp_out", values.mlp_out, tokens, sizes_.width));
  return model::CatchTorch("adding a chunk's moments", [&]() -> absl::Status {
    const at::Tensor& a = values.acts;
    const at::Tensor& pre = values.pre_relu;
    const at::Tensor& out = values.mlp_out;
    const at::Tensor squares = a.square();
    const at::Tensor active = a.gt(0).to(at::kFloat);
    const at::Tensor gate = values.mid.gt(0).to(at::kFloat);
    const std::vector<at::Tensor> chunk = {
        a.t().mm(gate),
        squares.t().mm(gate),
        a.sum(0),
        squares.sum(0),
        active.sum(0),
        a.t().mm(a),
        active.t().mm(active),
        active.t().mm(gate),
        gate.sum(0),
        values.mid.sum(0),
        (gate * values.mid).sum(0),
        at::scalar_tensor(tokens, at::kDouble),
        pre.sum(0),
        pre.pow(3).sum(0),
        active.t().mm(pre),
        pre.t().mm(pre),
        out.sum(0),
        active.t().mm(out),
        out.t().mm(out)};
    // To the host first: what can fail has, once the totals begin to change.
    std::vector<at::Tensor> here;
    for (const at::Tensor& sum : chunk) here.push_back(sum.cpu());
    for (int i = 0; i < kSums; ++i) sums_[i].add_(here[i]);
    return absl::OkStatus();
  });
}

absl::Status MidcoderStatistics::Merge(const MidcoderStatistics& other) {
  if (!(other.sizes_ == sizes_)) {
    return absl::InvalidArgumentError(
        "midcoder statistics of other sizes cannot be merged");
  }
  for (int i = 0; i < kSums; ++i) sums_[i].add_(other.sums_[i]);
  return absl::OkStatus();
}

absl::Status MidcoderStatistics::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(sizes_));
  for (const at::Tensor& sum : sums_) {
    RETURN_IF_ERROR(state->Append(sum.const_data_ptr(), sum.nbytes()));
  }
  return absl::OkStatus();
}

absl::Status MidcoderStatistics::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreSame(state, sizes_));
  for (const at::Tensor& sum : sums_) {
    RETURN_IF_ERROR(state->Read(sum.mutable_data_ptr(), sum.nbytes()));
    if (!at::isfinite(sum).all().item<bool>()) {
      return absl::DataLossError("the state has a sum that is none");
    }
  }
  return AtEnd(*state);
}

absl::StatusOr<at::Tensor> MidcoderStatistics::Sum(
    absl::string_view name) const {
  const auto& names = Names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sum is \"", name, "\"; accepted: ", absl::StrJoin(names, ", ")));
  }
  return sums_[found - names.begin()];
}

}  // namespace cupola::analysis
