#include "server/analysis/moved_latents.h"

#include <algorithm>
#include <vector>

#include "server/analysis/sandwich.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// Dense activations held at a time.
constexpr int64_t kChunkValues = int64_t{1} << 23;

}  // namespace

absl::StatusOr<at::Tensor> ActivationsAt(const Pass& pass,
                                         const MlpBridge& bridge,
                                         const dictionary::Dictionary& out,
                                         const at::Tensor& x,
                                         const at::Tensor& latents) {
  const int64_t rows = x.size(0);
  const int64_t step = std::max<int64_t>(32, kChunkValues / out.d_sae());
  at::Tensor values = at::empty(latents.sizes(), x.options());
  for (int64_t first = 0; first < rows; first += step) {
    RETURN_IF_ERROR(pass.poll());
    const int64_t count = std::min(step, rows - first);
    const MlpBridge::Point point =
        bridge.Evaluate(pass.model, x.narrow(0, first, count));
    ASSIGN_OR_RETURN(const at::Tensor acts, out.EncodeDense(point.y));
    values.narrow(0, first, count)
        .copy_(acts.gather(1, latents.narrow(0, first, count)));
  }
  return values;
}

at::Tensor DirectionsOf(const MlpBridge& bridge,
                        const dictionary::Dictionary& in,
                        const at::Tensor& read, const at::Tensor& latents) {
  const at::Tensor rows = bridge.decoder().rows.index_select(0, latents);
  const at::Tensor scale = DecodeScale(in, read);
  return scale.defined() ? rows * scale : rows;
}

}  // namespace cupola::analysis
