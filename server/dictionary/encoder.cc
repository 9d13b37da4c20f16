#include "server/dictionary/encoder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "server/dictionary/activation.h"
#include "server/dictionary/selection.h"
#include "server/model/status_macros.h"

namespace cupola::dictionary {
namespace {

// Pre-activations held at a time: on a CPU small enough to stay in the last
// cache, large enough for an efficient product.
constexpr int64_t kChunkValuesCpu = int64_t{1} << 20;
constexpr int64_t kChunkValuesDevice = int64_t{1} << 26;
constexpr int64_t kMinimumChunkRows = 32;
// A row is screened well when no more than this share of its latents is
// computed in full; screening ends with the chunk when a quarter of the rows
// are not.
constexpr int64_t kScreenedShare = 16;

int64_t ChunkRows(const at::Tensor& input, int64_t d_sae) {
  const int64_t values =
      input.device().is_cpu() ? kChunkValuesCpu : kChunkValuesDevice;
  return std::max(kMinimumChunkRows, values / d_sae);
}

// float32 [rows, d_sae], contiguous and not shared with anyone.
at::Tensor PreActivations(const Weights& weights, const at::Tensor& input) {
  return weights.encoder(input.to(weights.W_dec.scalar_type()))
      .to(at::kFloat)
      .contiguous();
}

ActivationVectors AllVectors(const Weights& weights) {
  return {weights.threshold, weights.b_gate, weights.b_mag, weights.mag_scale};
}

const float* Data(const at::Tensor& tensor) {
  return tensor.const_data_ptr<float>();
}

// Selects rows of a chunk of pre-activations on the CPU. One per thread.
class RowSelector {
 public:
  RowSelector(const Manifest& manifest, const Weights& weights,
              const EncodeOptions& options)
      : manifest_(manifest), weights_(weights), options_(options) {}

  // Turns `row` into activations up to TopK's competition, in place, and
  // appends the kept ones. False when one of them is not finite.
  bool Append(float* row, SparseRowsBuilder::Piece* piece) {
    Transform(row);
    return Keep(row, From::kRow, piece);
  }

  // The same where `row` holds the pre-activations of the first parts of x and
  // of the encoder, for dictionaries with a screen. Counts in `unscreened` a
  // row of which all latents had to be computed.
  bool AppendScreened(const float* x, float* row,
                      SparseRowsBuilder::Piece* piece,
                      std::atomic<int64_t>* unscreened) {
    const float radius = weights_.screen.Radius(x);
    competing_.clear();
    if (std::isfinite(radius)) {
      SelectNear(weights_.screen.lengths(), radius, weights_.screen.slack(),
                 manifest_.d_sae, Winners(), options_.min_activation, row,
                 &scratch_, &competing_);
    } else {
      competing_.resize(manifest_.d_sae);
      std::iota(competing_.begin(), competing_.end(), 0);
    }
    const auto count = static_cast<int64_t>(competing_.size());
    if (count > manifest_.d_sae / kScreenedShare) ++*unscreened;
    exact_.resize(count);
    weights_.encoder.split()->Dots(x, competing_, exact_.data());
    const at::Tensor& bias = weights_.encoder.bias();
    for (int64_t i = 0; i < count; ++i) {
      const int32_t latent = competing_[i];
      if (bias.defined()) exact_[i] += Data(bias)[latent];
      row[latent] = exact_[i];
    }
    return Keep(row, From::kCompeting, piece);
  }

  // Turns `row` into activations, in place.
  void Densify(float* row) {
    const int64_t n = manifest_.d_sae;
    if (manifest_.architecture != Architecture::kTopK) {
      Transform(row);
      for (int64_t i = 0; i < n; ++i) row[i] = row[i] > 0 ? row[i] : 0;
      return;
    }
    selected_.clear();
    SelectTopK(row, n, manifest_.k, 0, &scratch_, &selected_);
    int64_t next = 0;
    for (int32_t index : selected_) {
      std::fill(row + next, row + index, 0.0f);
      next = index + 1;
    }
    std::fill(row + next, row + n, 0.0f);
  }

 private:
  // Where the winners are sought: in the whole row, or among competing_, whose
  // values exact_ are in the row, too.
  enum class From { kRow, kCompeting };

  bool Keep(const float* row, From from, SparseRowsBuilder::Piece* piece) {
    const size_t before = piece->indices.size();
    Select(row, from, &piece->indices);
    for (size_t i = before; i < piece->indices.size(); ++i) {
      const float value = row[piece->indices[i]];
      if (!std::isfinite(value)) return false;
      piece->values.push_back(value);
    }
    piece->counts.push_back(
        static_cast<int64_t>(piece->indices.size() - before));
    return true;
  }

  void Transform(float* row) const {
    const int64_t n = manifest_.d_sae;
    switch (manifest_.architecture) {
      case Architecture::kJumpRelu:
        return ApplyJumpRelu(Data(weights_.threshold), n, row);
      case Architecture::kGated:
        return ApplyGate(Data(weights_.b_gate), Data(weights_.mag_scale),
                         Data(weights_.b_mag), n, row);
      default:
        return;  // selected by size, above a floor of at least 0
    }
  }

  // How many of a row are kept before it is narrowed to given latents; 0: all
  // above the floor.
  int64_t Winners() const {
    const int64_t k =
        manifest_.architecture == Architecture::kTopK ? manifest_.k : 0;
    if (!options_.latents.empty() || options_.top_k <= 0) return k;
    return k > 0 ? std::min(k, options_.top_k) : options_.top_k;
  }

  void Compete(const float* row, From from, std::vector<int32_t>* out) {
    const int64_t k = Winners();
    const float floor = options_.min_activation;
    if (from == From::kCompeting) {
      places_.clear();
      SelectTopK(exact_.data(), exact_.size(), k, floor, &scratch_, &places_);
      for (int32_t place : places_) out->push_back(competing_[place]);
    } else if (k > 0) {
      SelectTopK(row, manifest_.d_sae, k, floor, &scratch_, out);
    } else {
      SelectAbove(row, manifest_.d_sae, floor, out);
    }
  }

  void Select(const float* row, From from, std::vector<int32_t>* out) {
    if (options_.latents.empty()) return Compete(row, from, out);
    selected_.clear();
    Compete(row, from, &selected_);
    narrowed_.clear();
    std::set_intersection(selected_.begin(), selected_.end(),
                          options_.latents.begin(), options_.latents.end(),
                          std::back_inserter(narrowed_));
    if (options_.top_k > 0) KeepLargest(row, options_.top_k, &narrowed_);
    out->insert(out->end(), narrowed_.begin(), narrowed_.end());
  }

  const Manifest& manifest_;
  const Weights& weights_;
  const EncodeOptions& options_;
  SelectionScratch scratch_;
  std::vector<int32_t> selected_, narrowed_;
  // Of a screened row: the latents that may win, ascending, their
  // pre-activations, and the winners among them.
  std::vector<int32_t> competing_, places_;
  std::vector<float> exact_;
};

absl::StatusOr<SparseRows> EncodeOnCpu(const Manifest& manifest,
                                       const Weights& weights,
                                       const at::Tensor& input,
                                       const EncodeOptions& options) {
  const int64_t rows = input.size(0), n = manifest.d_sae;
  SparseRowsBuilder builder;
  std::mutex mutex;
  std::atomic<int64_t> bad_row{rows}, unscreened{0};
  for (int64_t first = 0; first < rows; first += ChunkRows(input, n)) {
    const int64_t count = std::min(ChunkRows(input, n), rows - first);
    const at::Tensor x = input.narrow(0, first, count).contiguous();
    const bool screened = weights.screen.defined() && 4 * unscreened <= first;
    const at::Tensor pre = screened
                               ? weights.encoder.split()->MultiplyFirstParts(
                                     x, weights.encoder.bias())
                               : PreActivations(weights, x);
    const float* from = x.const_data_ptr<float>();
    float* data = pre.data_ptr<float>();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      RowSelector selector(manifest, weights, options);
      SparseRowsBuilder::Piece piece;
      piece.first_row = first + begin;
      for (int64_t row = begin; row < end; ++row) {
        const bool finite = screened ? selector.AppendScreened(
                                           from + row * x.size(1),
                                           data + row * n, &piece, &unscreened)
                                     : selector.Append(data + row * n, &piece);
        if (!finite) {
          bad_row = std::min(bad_row.load(), first + row);
          return;
        }
      }
      const std::lock_guard<std::mutex> lock(mutex);
      builder.Add(std::move(piece));
    });
    if (bad_row < rows) return OverflowError(bad_row);
  }
  return std::move(builder).Build(rows, n);
}

at::Tensor Activate(const Manifest& manifest, const Weights& weights,
                    const at::Tensor& pre) {
  if (manifest.architecture == Architecture::kTopK) {
    return KeepTopK(pre, manifest.k);
  }
  return Rectify(manifest.architecture, AllVectors(weights), pre);
}

absl::StatusOr<SparseRows> EncodeOnDevice(const Manifest& manifest,
                                          const Weights& weights,
                                          const at::Tensor& input,
                                          const EncodeOptions& options) {
  const int64_t rows = input.size(0), n = manifest.d_sae;
  at::Tensor latents;
  if (!options.latents.empty()) {
    latents =
        at::tensor(options.latents, at::kInt).to(input.device(), at::kLong);
  }
  std::vector<at::Tensor> indices, values;
  SparseRows result;
  result.columns = n;
  result.indptr = at::zeros({rows + 1}, at::kLong);
  int64_t entries = 0;
  for (int64_t first = 0; first < rows; first += ChunkRows(input, n)) {
    const int64_t count = std::min(ChunkRows(input, n), rows - first);
    at::Tensor acts =
        Activate(manifest, weights,
                 PreActivations(weights, input.narrow(0, first, count)));
    if (latents.defined()) acts = acts.index_select(1, latents);
    ASSIGN_OR_RETURN(const SparseRows part,
                     ToSparse(acts, latents, n, options));
    result.indptr.narrow(0, first, count + 1).copy_(part.indptr + entries);
    entries += part.indices.numel();
    indices.push_back(part.indices);
    values.push_back(part.values);
  }
  result.indices = rows > 0 ? at::cat(indices) : at::empty({0}, at::kInt);
  result.values = rows > 0 ? at::cat(values) : at::empty({0}, at::kFloat);
  return result;
}

}  // namespace

absl::StatusOr<SparseRows> EncodeSparse(const Manifest& manifest,
                                        const Weights& weights,
                                        const at::Tensor& input,
                                        const EncodeOptions& options) {
  return input.device().is_cpu()
             ? EncodeOnCpu(manifest, weights, input, options)
             : EncodeOnDevice(manifest, weights, input, options);
}

at::Tensor EncodeAll(const Manifest& manifest, const Weights& weights,
                     const at::Tensor& input) {
  const at::Tensor pre = PreActivations(weights, input);
  if (!pre.device().is_cpu()) return Activate(manifest, weights, pre);
  float* data = pre.data_ptr<float>();
  at::parallel_for(0, pre.size(0), 1, [&](int64_t begin, int64_t end) {
    const EncodeOptions all;
    RowSelector selector(manifest, weights, all);
    for (int64_t row = begin; row < end; ++row) {
      selector.Densify(data + row * manifest.d_sae);
    }
  });
  return pre;
}

at::Tensor EncodeColumns(const Manifest& manifest, const Weights& weights,
                         const at::Tensor& input, const at::Tensor& columns,
                         const at::Tensor& latents) {
  const auto part = [&latents](const at::Tensor& vector) {
    return vector.defined() ? vector.index_select(0, latents) : at::Tensor();
  };
  const at::Tensor bias = part(weights.encoder.bias());
  const at::Tensor pre =
      at::linear(
          input.to(columns.scalar_type()), columns,
          bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt)
          .to(at::kFloat);
  const ActivationVectors vectors = {part(weights.threshold),
                                     part(weights.b_gate), part(weights.b_mag),
                                     part(weights.mag_scale)};
  return Rectify(manifest.architecture, vectors, pre);
}

}  // namespace cupola::dictionary
