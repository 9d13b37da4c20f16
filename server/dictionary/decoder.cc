#include "server/dictionary/decoder.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "ATen/Parallel.h"
#include "server/dictionary/vectorize.h"

namespace cupola::dictionary {
namespace {

// A gathered row costs its bytes from memory, a dense row a share of a product
// that reads W_dec once for many rows: about this share of active latents makes
// them equal.
constexpr int64_t kDenseShare = 16;
constexpr int64_t kDenseMinimumRows = 16;
constexpr int64_t kDenseChunkValues = int64_t{1} << 24;

CUPOLA_CLONES void AddScaled(const float* in, float scale, int64_t n,
                             float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] += scale * in[i];
}

CUPOLA_CLONES void AddScaled(const at::BFloat16* in, float scale, int64_t n,
                             float* out) {
  // A bfloat16 is the upper half of a float.
  const uint16_t* bits = reinterpret_cast<const uint16_t*>(in);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t wide = uint32_t{bits[i]} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    out[i] += scale * value;
  }
}

template <typename Scalar>
void GatherOnCpu(const SparseRows& features, const at::Tensor& W_dec,
                 at::Tensor* out) {
  const int64_t width = W_dec.size(1);
  const Scalar* weights = W_dec.const_data_ptr<Scalar>();
  const int64_t* indptr = features.indptr.const_data_ptr<int64_t>();
  const int32_t* indices = features.indices.const_data_ptr<int32_t>();
  const float* values = features.values.const_data_ptr<float>();
  float* data = out->data_ptr<float>();
  at::parallel_for(0, out->size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = indptr[row]; i < indptr[row + 1]; ++i) {
        AddScaled(weights + indices[i] * width, values[i], width,
                  data + row * width);
      }
    }
  });
}

// int64 [entries]: the row of each entry, on the CPU.
at::Tensor EntryRows(const SparseRows& features) {
  at::Tensor rows = at::empty({features.indices.numel()}, at::kLong);
  int64_t* data = rows.data_ptr<int64_t>();
  const int64_t* indptr = features.indptr.const_data_ptr<int64_t>();
  for (int64_t row = 0; row + 1 < features.indptr.numel(); ++row) {
    std::fill(data + indptr[row], data + indptr[row + 1], row);
  }
  return rows;
}

at::Tensor GatherOnDevice(const SparseRows& features, const at::Tensor& W_dec) {
  const at::Device device = W_dec.device();
  const at::Tensor sums = std::get<0>(at::_embedding_bag_forward_only(
      W_dec, features.indices.to(device, at::kLong), features.indptr.to(device),
      /*scale_grad_by_freq=*/false, /*mode=*/0,
      /*sparse=*/false, features.values.to(device, W_dec.scalar_type()),
      /*include_last_offset=*/true));
  return sums.to(at::kFloat);
}

void DenseProduct(const SparseRows& features, const at::Tensor& W_dec,
                  at::Tensor* out) {
  const int64_t rows = out->size(0), d_sae = W_dec.size(0);
  const at::Tensor entry_rows = EntryRows(features);
  const int64_t* indptr = features.indptr.const_data_ptr<int64_t>();
  const int64_t chunk = std::max(kDenseMinimumRows, kDenseChunkValues / d_sae);
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t count = std::min(chunk, rows - first);
    const int64_t begin = indptr[first], size = indptr[first + count] - begin;
    at::Tensor dense = at::zeros({count, d_sae}, at::kFloat);
    dense.index_put_({entry_rows.narrow(0, begin, size) - first,
                      features.indices.narrow(0, begin, size).to(at::kLong)},
                     features.values.narrow(0, begin, size),
                     /*accumulate=*/true);
    const at::Tensor product =
        at::mm(dense.to(W_dec.device(), W_dec.scalar_type()), W_dec);
    out->narrow(0, first, count).add_(product.to(at::kFloat));
  }
}

}  // namespace

at::Tensor DecodeSparse(const SparseRows& features, const at::Tensor& W_dec,
                        const at::Tensor& b_dec) {
  const int64_t rows = features.indptr.numel() - 1;
  at::Tensor out =
      at::zeros({rows, W_dec.size(1)}, W_dec.options().dtype(at::kFloat));
  if (b_dec.defined()) out.copy_(b_dec.expand_as(out));
  const int64_t entries = features.indices.numel();
  if (entries == 0) return out;
  if (rows >= kDenseMinimumRows &&
      entries / rows > W_dec.size(0) / kDenseShare) {
    DenseProduct(features, W_dec, &out);
  } else if (!W_dec.device().is_cpu()) {
    out.add_(GatherOnDevice(features, W_dec));
  } else if (W_dec.scalar_type() == at::kBFloat16) {
    GatherOnCpu<at::BFloat16>(features, W_dec, &out);
  } else {
    GatherOnCpu<float>(features, W_dec, &out);
  }
  return out;
}

}  // namespace cupola::dictionary
