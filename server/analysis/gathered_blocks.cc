#include "server/analysis/gathered_blocks.h"

#include <algorithm>
#include <vector>

#include "ATen/Parallel.h"
#include "server/analysis/row_products.h"
#include "server/dictionary/vectorize.h"

namespace cupola::analysis {
namespace {

// row * gradients * scale, its halves summed where there are two.
CUPOLA_CLONES void ScaleRow(const float* row, const float* gradients,
                            float scale, int64_t hidden, bool halves,
                            float* out) {
  if (halves) {
    for (int64_t m = 0; m < hidden; ++m) {
      out[m] = scale * (row[m] * gradients[m] +
                        row[hidden + m] * gradients[hidden + m]);
    }
  } else {
    for (int64_t m = 0; m < hidden; ++m) {
      out[m] = scale * (row[m] * gradients[m]);
    }
  }
}

// The tables and the tokens' factors, ready to be read by row.
struct Reader {
  Reader(const BlockTables& tables, const at::Tensor& gradients,
         const at::Tensor& scale)
      : hidden(tables.out.size(1)),
        width(tables.in.size(1)),
        slopes(gradients.contiguous()),
        scales(scale.defined() ? scale.contiguous() : scale),
        out(tables.out.const_data_ptr<float>()),
        in(tables.in.const_data_ptr<float>()) {}

  const float* OutRow(int64_t latent) const { return out + latent * hidden; }
  // An input latent's row, ready for products with those of outputs.
  void InRow(int64_t latent, int64_t token, float* to) const {
    ScaleRow(in + latent * width,
             slopes.const_data_ptr<float>() + token * width,
             scales.defined() ? scales.const_data_ptr<float>()[token] : 1.0f,
             hidden, width != hidden, to);
  }

  const int64_t hidden, width;
  const at::Tensor slopes, scales;
  const float* const out;
  const float* const in;
};

}  // namespace

at::Tensor GatheredBlocks(const BlockTables& tables, const at::Tensor& outs,
                          const at::Tensor& ins, const at::Tensor& gradients,
                          const at::Tensor& scale) {
  const Reader reader(tables, gradients, scale);
  const int64_t n = outs.size(0), k_out = outs.size(1), k_in = ins.size(1);
  const int64_t hidden = reader.hidden;
  at::Tensor blocks = at::empty({n, k_out, k_in}, gradients.options());
  if (blocks.numel() == 0) return blocks;
  const at::Tensor out_index = outs.contiguous(), in_index = ins.contiguous();
  const int64_t* const out_data = out_index.const_data_ptr<int64_t>();
  const int64_t* const in_data = in_index.const_data_ptr<int64_t>();
  float* const block_data = blocks.mutable_data_ptr<float>();
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scaled(k_in * hidden);
    std::vector<const float*> u(k_out), z(k_in);
    for (int64_t j = 0; j < k_in; ++j) z[j] = scaled.data() + j * hidden;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t* const mine_out = out_data + t * k_out;
      const int64_t* const mine_in = in_data + t * k_in;
      float* const block = block_data + t * k_out * k_in;
      for (int64_t j = 0; j < k_in; ++j) {
        float* const to = scaled.data() + j * hidden;
        if (mine_in[j] < 0) {
          std::fill(to, to + hidden, 0.0f);
        } else {
          reader.InRow(mine_in[j], t, to);
        }
      }
      for (int64_t i = 0; i < k_out; ++i) {
        u[i] = reader.OutRow(std::max<int64_t>(mine_out[i], 0));
      }
      MultiplyRows(u.data(), k_out, z.data(), k_in, hidden, block, k_in);
      for (int64_t i = 0; i < k_out; ++i) {
        if (mine_out[i] < 0) std::fill_n(block + i * k_in, k_in, 0.0f);
      }
    }
  });
  return blocks;
}

}  // namespace cupola::analysis
