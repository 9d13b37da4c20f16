#include "server/analysis/layers_record.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "server/analysis/tensor_io.h"
#include "server/dictionary/weights.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using storage::Array;
using storage::DType;

// Values of gathered decoder rows, or of rows against all latents, at a time.
constexpr int64_t kChunkValues = int64_t{1} << 23;

at::Tensor IndexOf(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

}  // namespace

std::vector<int64_t> SourcesOf(SourceRule rule, const Sequence& sequence,
                               int64_t position) {
  if (rule == SourceRule::kSame) return {position};
  if (rule == SourceRule::kGiven) return sequence.lists.front();
  std::vector<int64_t> all(position + 1);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

LayersRecord::LayersRecord(const dictionary::Dictionary& dictionary,
                           const LayersJacobianOptions& options,
                           const Sequence& sequence, ActiveLatents in,
                           ActiveLatents out, at::Tensor decode_scale,
                           int64_t max_bytes)
    : dictionary_(dictionary),
      options_(options),
      in_(std::move(in)),
      out_(std::move(out)),
      decode_scale_(std::move(decode_scale)),
      max_bytes_(max_bytes),
      whole_(options.min_abs, options.top, max_bytes) {
  // An output's sources are the first of all that `in` has: the given ones, or
  // those up to its position.
  for (size_t i = 0; i < sequence.positions.size(); ++i) {
    const int64_t position = sequence.positions[i];
    const std::vector<int64_t> sources =
        SourcesOf(options.sources, sequence, position);
    for (size_t j = 0; j < sources.size(); ++j) {
      row_in_.push_back(options.sources == SourceRule::kSame ? i : j);
      row_out_.push_back(i);
      positions_.push_back(position);
      sources_.push_back(sources[j]);
    }
  }
}

absl::Status LayersRecord::CheckBytes() const {
  const double rows = row_in_.size(), k_in = in_.width(), k_out = out_.width();
  double bytes = 8 * rows * (k_in + k_out);
  if (options_.block && !options_.all_inputs) bytes += 4 * rows * k_in * k_out;
  if (bytes <= static_cast<double>(max_bytes_)) return absl::OkStatus();
  return JacobianTooLarge(bytes, max_bytes_);
}

absl::Status LayersRecord::Append(const at::Tensor& gradients,
                                  const std::function<absl::Status()>& poll) {
  const int64_t k_out = gradients.size(1), d = gradients.size(2);
  const int64_t values = options_.all_inputs ? k_out * d : in_.width() * d;
  const int64_t step =
      std::max<int64_t>(1, kChunkValues / std::max<int64_t>(1, values));
  for (int64_t first = 0; first < gradients.size(0); first += step) {
    RETURN_IF_ERROR(poll());
    const int64_t count = std::min(step, gradients.size(0) - first);
    const auto begin = row_in_.begin() + rows_done_;
    const at::Tensor in = IndexOf({begin, begin + count}, gradients.device());
    rows_done_ += count;
    at::Tensor rows = gradients.narrow(0, first, count);
    if (decode_scale_.defined()) {
      rows = rows * decode_scale_.index_select(0, in).unsqueeze(-1);
    }
    if (options_.all_inputs) {
      RETURN_IF_ERROR(AppendWhole(rows));
    } else {
      blocks_.push_back(Block(rows, in));
    }
  }
  return absl::OkStatus();
}

at::Tensor LayersRecord::Block(const at::Tensor& gradients,
                               const at::Tensor& in) const {
  const at::Tensor latents = in_.safe().index_select(0, in);
  const at::Tensor decoders =
      dictionary_.weights()
          .W_dec.index_select(0, latents.reshape({-1}))
          .to(at::kFloat)
          .view({latents.size(0), latents.size(1), gradients.size(2)});
  at::Tensor block = at::bmm(gradients, decoders.transpose(1, 2));
  block.mul_(in_.valid().index_select(0, in).unsqueeze(1));
  if (options_.min_abs > 0) {
    block.masked_fill_(block.abs().lt(options_.min_abs), 0);
  }
  return block.cpu();
}

absl::Status LayersRecord::AppendWhole(const at::Tensor& gradients) {
  const at::Tensor decoders = dictionary_.weights().W_dec.to(at::kFloat);
  const at::Tensor flat = gradients.reshape({-1, gradients.size(2)});
  const int64_t step = std::max<int64_t>(1, kChunkValues / dictionary_.d_sae());
  for (int64_t first = 0; first < flat.size(0); first += step) {
    const int64_t count = std::min(step, flat.size(0) - first);
    RETURN_IF_ERROR(
        whole_.Append(at::mm(flat.narrow(0, first, count), decoders.t())));
  }
  return absl::OkStatus();
}

std::vector<Array> LayersRecord::Finish() {
  const auto empty = [](DType dtype) { return Array{dtype, {0}, {}}; };
  const at::Device device = in_.indices.device();
  const at::Tensor in = IndexOf(row_in_, device);
  const at::Tensor out = IndexOf(row_out_, device);
  const auto rows = [](const at::Tensor& x, const at::Tensor& index,
                       DType dtype) {
    return ToArray(x.index_select(0, index), dtype);
  };
  const auto numbers = [](const std::vector<int64_t>& x) {
    return ToArray(at::tensor(x, at::kLong), DType::kInt32);
  };
  using Fields = JacobianAnalysis;
  std::vector<Array> record(kFields, empty(DType::kFloat32));
  record[kPosition] = numbers(positions_);
  record[kSourcePosition] = numbers(sources_);
  record[Fields::kInLatents] = rows(in_.indices, in, DType::kInt32);
  record[Fields::kInActs] = rows(in_.values, in, DType::kFloat32);
  record[Fields::kOutLatents] = rows(out_.indices, out, DType::kInt32);
  record[Fields::kOutActs] = rows(out_.values, out, DType::kFloat32);
  record[Fields::kIndptr] = empty(DType::kInt64);
  record[Fields::kIndices] = empty(DType::kUInt32);
  if (options_.all_inputs) {
    RowsOfJacobian whole = whole_.Finish();
    record[Fields::kIndptr] = std::move(whole.indptr);
    record[Fields::kIndices] = std::move(whole.indices);
    record[Fields::kValues] = std::move(whole.values);
  } else if (options_.block) {
    record[Fields::kValues] = ToArray(
        blocks_.empty() ? at::zeros({in.size(0), out_.width(), in_.width()})
                        : at::cat(blocks_),
        DType::kFloat32);
  }
  return record;
}

}  // namespace cupola::analysis
