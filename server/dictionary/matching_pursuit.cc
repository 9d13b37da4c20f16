#include "server/dictionary/matching_pursuit.h"

#include <tuple>

namespace cupola::dictionary {
namespace {

// The lowest index of each row's maximum: int64 [rows]. (at::max leaves open
// which of equal entries it returns.)
at::Tensor FirstArgmax(const at::Tensor& scores) {
  const at::Tensor best = scores.amax(-1, /*keepdim=*/true);
  const at::Tensor columns = at::arange(scores.size(-1), scores.device());
  return at::where(scores.eq(best), columns, scores.size(-1))
      .amin(-1)
      .clamp_max(scores.size(-1) - 1);  // a row of NaN has no maximum
}

}  // namespace

at::Tensor EncodeMatchingPursuit(const Manifest& manifest,
                                 const Weights& weights,
                                 const at::Tensor& input) {
  const at::ScalarType dtype = weights.W_dec.scalar_type();
  at::Tensor acts = at::zeros({input.size(0), manifest.d_sae}, input.options());
  const int64_t rounds =
      manifest.max_iterations > 0 ? manifest.max_iterations : manifest.d_in;
  at::Tensor residual = input;  // of the rows that go on
  at::Tensor rows = at::arange(input.size(0), input.device());
  for (int64_t round = 0; round < rounds && rows.numel() > 0; ++round) {
    const at::Tensor atoms = FirstArgmax(weights.encoder(residual.to(dtype)));
    const at::Tensor directions =
        weights.W_dec.index_select(0, atoms).to(at::kFloat);
    const at::Tensor amounts = at::relu((residual * directions).sum(-1));
    const at::Tensor had = acts.index({rows, atoms});
    const at::Tensor has = had + amounts;
    acts.index_put_({rows, atoms}, has);
    residual = residual - amounts.unsqueeze(-1) * directions;

    at::Tensor done =
        at::zeros({rows.numel()}, rows.options().dtype(at::kBool));
    if (manifest.stop_on_duplicate_support) {
      done = had.ne(0) | has.eq(0);  // the set of active atoms did not grow
    }
    if (weights.residual_threshold > 0) {
      done = done | at::linalg_vector_norm(residual, 2, {-1})
                        .lt(weights.residual_threshold);
    }
    const at::Tensor going = done.logical_not().nonzero().select(1, 0);
    if (going.numel() == rows.numel()) continue;
    rows = rows.index_select(0, going);
    residual = residual.index_select(0, going);
  }
  return acts;
}

}  // namespace cupola::dictionary
