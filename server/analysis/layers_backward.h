#ifndef CUPOLA_SERVER_ANALYSIS_LAYERS_BACKWARD_H_
#define CUPOLA_SERVER_ANALYSIS_LAYERS_BACKWARD_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "server/model/block_vjp.h"
#include "server/model/checkpointed_pass.h"
#include "server/model/model.h"

namespace cupola::analysis {

// Cotangents on their way from one hook point back to another, all in one row
// of a clean pass.
struct BackwardLane {
  int64_t row = 0;
  // Before: at the span's first point, at the output's position, or, of a lane
  // of `own`, at any positions, each with cotangents of its own. After: at the
  // span's last point, at `sources`, in their order.
  model::Cotangents cotangents;
  // `own`: every position is its own source, and this is not read. Else the
  // input's positions, in any order; those behind the output get zeros.
  bool own = false;
  std::vector<int64_t> sources;
};

// What a lane holds on its way at most, in values for each of its rows: so many
// rows can go together.
int64_t BackwardValuesPerRow(const model::ModelConfig& config,
                             const BackwardLane& lane);

// What going back needs beside the lanes, in bytes: the matrices of a block,
// and the clean pass's tokens.
int64_t BackwardBytes(const model::ModelConfig& config,
                      const model::BackwardSpan& span, int64_t tokens);

// Takes all lanes back, block by block: each block's inside is computed anew
// and its matrices are unpacked once for all of them. `pass` has kept the
// layers of the span. Cotangents that are all zero may come back undefined.
// Polled between lanes and layers. Exceptions of LibTorch pass through.
absl::Status GoBack(const model::Model& model, const model::BackwardSpan& span,
                    const model::CheckpointedPass& pass,
                    const std::function<absl::Status()>& poll,
                    std::vector<BackwardLane>* lanes);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LAYERS_BACKWARD_H_
