#ifndef CUPOLA_SERVER_ANALYSIS_GATHERED_BLOCKS_H_
#define CUPOLA_SERVER_ANALYSIS_GATHERED_BLOCKS_H_

#include "ATen/ATen.h"

namespace cupola::analysis {

// Rows of two tables that meet in a block per token. float32 on the CPU, rows
// contiguous.
struct BlockTables {
  at::Tensor out;  // [d_out, hidden]
  at::Tensor in;   // [d_in, hidden], or [d_in, 2 hidden]
};

// For each token t, with u the rows of `out` that outs[t] names and z those of
// `in` that ins[t] names:
//   block[t, i, j] = scale[t] sum_m u_i[m] gradients[t, m] z_j[m]
// and over both halves of z and the gradients where there are two. outs: int64
// [n, k_out], ins: int64 [n, k_in], with -1 for padding, whose entries are 0;
// gradients: float32 [n, the width of `in`]; scale: float32 [n, 1], undefined:
// 1 -> float32 [n, k_out, k_in].
//
// One pass per token, tokens in parallel: rows are read where they lie, and the
// scaled ones stay in a core's cache while the block is made.
at::Tensor GatheredBlocks(const BlockTables& tables, const at::Tensor& outs,
                          const at::Tensor& ins, const at::Tensor& gradients,
                          const at::Tensor& scale);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_GATHERED_BLOCKS_H_
