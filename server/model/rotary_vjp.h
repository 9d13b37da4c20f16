#ifndef CUPOLA_SERVER_MODEL_ROTARY_VJP_H_
#define CUPOLA_SERVER_MODEL_ROTARY_VJP_H_

#include "ATen/ATen.h"
#include "server/model/model_config.h"
#include "server/model/rotary.h"

namespace cupola::model {

// The inverse of RotaryTable::Rotate, which is also its transpose. x: float32
// [rows, positions, heads, d_head], which stands at `positions`, int64
// [positions], in every row. `rotary` is what `table` was made of. Exceptions
// of LibTorch pass through.
at::Tensor RotateBack(const Rotary& rotary, const RotaryTable& table,
                      const at::Tensor& x, const at::Tensor& positions);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_ROTARY_VJP_H_
