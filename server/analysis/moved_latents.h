#ifndef CUPOLA_SERVER_ANALYSIS_MOVED_LATENTS_H_
#define CUPOLA_SERVER_ANALYSIS_MOVED_LATENTS_H_

#include <optional>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/analysis/latent_screen.h"
#include "server/analysis/mlp_bridge.h"
#include "server/dictionary/dictionary.h"

namespace cupola::analysis {

// Tokens whose x moves along an input latent's decoder direction: [m] each, and
// by how much of it, [m, points].
struct Moves {
  at::Tensor token, in;  // int64
  at::Tensor amounts;    // float32
};

// Where the moved tokens arrive behind the MLP, float32 [m * points, d] at
// place().y. read, x: all tokens' rows. Polled between chunks. Exceptions of
// LibTorch pass through.
absl::StatusOr<at::Tensor> MovedOutputs(
    const Pass& pass, const MlpBridge& bridge, const dictionary::Dictionary& in,
    const at::Tensor& read, const at::Tensor& x, const Moves& moves);

// Reads an output dictionary's activations of few latents, its own selection (a
// TopK's competition) included. Where the dictionary allows it, latents that
// cannot win are skipped with proof (latent_screen.h). The dictionary outlives
// this.
class LatentReader {
 public:
  LatentReader(const MlpBridge& bridge, const dictionary::Dictionary& out);

  // y: float32 [rows, d] at place().y; the segments' rows are in order and
  // begin with the first -> of each segment in turn [end - begin, latents],
  // flat, on the host. Adds to `counts`. Errors as Dictionary::Encode's, and
  // poll's.
  absl::StatusOr<at::Tensor> Read(const Pass& pass, const at::Tensor& y,
                                  const std::vector<ScreenedSegment>& segments,
                                  ScreenCounts* counts) const;

 private:
  const dictionary::Dictionary& out_;
  std::optional<LatentScreen> screen_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_MOVED_LATENTS_H_
