#ifndef CUPOLA_SERVER_ANALYSIS_MLP_BRIDGE_H_
#define CUPOLA_SERVER_ANALYSIS_MLP_BRIDGE_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/bridge_place.h"
#include "server/analysis/token_map.h"
#include "server/dictionary/dictionary.h"
#include "server/model/linear.h"
#include "server/model/model.h"
#include "server/model/norm.h"

namespace cupola::analysis {

// Directions of latents that a fixed matrix takes to the MLP's hidden width,
// rows first or matrix first: the decoder's rows behind W_in, the encoder's
// columns before W_out. float32.
struct LatentDirections {
  at::Tensor rows;      // [d_sae, d]
  at::Tensor matrix;    // [d, hidden]
  at::Tensor folded;    // the same with its rows times the gain between
  at::Tensor products;  // rows folded, [d_sae, hidden]; undefined: not kept

  // The rows of `latents` (int64 [n, k]) through `map`, whose gain is the one
  // folded, and the matrix: [n, k, hidden].
  at::Tensor Gather(const at::Tensor& latents, const TokenMap& map) const;
  int64_t Bytes() const;
};

// The MLP between two dictionaries, with the constants that Jacobians are made
// of. Immutable; Evaluate is called from one thread per device at a time.
class MlpBridge {
 public:
  // With `keep_products`, W_dec W_in and W_out W_enc are computed once and held
  // (Bytes() tells how many); without, rows are gathered first and multiplied
  // each time, which needs no more than the weights themselves and takes
  // longer. Same numbers up to rounding. `model` may be null where the pair's
  // file holds the MLP. Errors of reading that file. Exceptions of LibTorch
  // pass through.
  static absl::StatusOr<std::shared_ptr<const MlpBridge>> Create(
      const BridgePlace& place, const model::Model* model,
      const dictionary::Dictionary& in, const dictionary::Dictionary& out,
      bool keep_products);
  // About what Create would hold with the products.
  static int64_t ProductBytes(const BridgePlace& place,
                              const dictionary::Manifest& in,
                              const dictionary::Manifest& out);

  // The MLP at given rows, with all that its derivative needs.
  struct Point {
    at::Tensor y;        // [n, d_out]
    at::Tensor mlp_out;  // [n, d_model]: hook_mlp_out, behind any post norm
    // d hidden / d pre-activation: [n, d_mlp], or gate | linear [n, 2 d_mlp].
    at::Tensor gradients;
    at::Tensor pre;                                // as gradients
    TokenMap in;                                   // from x to the MLP's input
    TokenMap out;                                  // from the MLP's output to y
    std::optional<Normalisation> norm, post_norm;  // where they are
    Point Select(const at::Tensor& tokens) const;  // int64 [m]
  };
  // x: float32 [n, d] at place().x. `model`: the one this was created with, or
  // a later load of the same weights; null where the file holds the MLP.
  Point Evaluate(const model::Model* model, const at::Tensor& x) const;

  const BridgePlace& place() const { return place_; }
  bool gated() const { return place_.gated; }
  const at::Tensor& W_out() const { return W_out_; }  // [d_mlp, d_model]
  const at::Tensor& post_gain() const { return post_norm_.weight; }  // or none
  const LatentDirections& decoder() const { return decoder_; }
  const LatentDirections& encoder() const { return encoder_; }
  int64_t Bytes() const;

 private:
  MlpBridge() = default;
  absl::Status ReadFile(const dictionary::Dictionary& pair);
  void ReadModel(const model::Model& model);
  // From x to the MLP's input, [n, d_model] in the model's dtype.
  at::Tensor MlpInput(const at::Tensor& x, Point* point) const;

  BridgePlace place_;
  model::Norm norm_, post_norm_;  // gains in float32
  model::Linear in_, out_;        // of the file's MLP, else empty
  at::Tensor W_out_;
  LatentDirections decoder_, encoder_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_MLP_BRIDGE_H_
