#ifndef CUPOLA_SERVER_ANALYSIS_LATENT_SCREEN_H_
#define CUPOLA_SERVER_ANALYSIS_LATENT_SCREEN_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/dictionary/dictionary.h"
#include "storage/array.h"

namespace cupola::analysis {

// Rows that lie near others, and the latents that are read there.
struct ScreenedSegment {
  int64_t begin = 0, end = 0;    // rows
  int64_t first = 0, last = 0;   // the rows they lie near; may be one
  std::vector<int32_t> latents;  // ascending, each once
};

// How many pre-activations a plain encoder would have computed, and how many
// were.
struct ScreenCounts {
  int64_t whole = 0, computed = 0;
  ScreenCounts& operator+=(const ScreenCounts& other);
  // Anchors are computed besides: below 0 counts as 0.
  double SkippedShare() const;
  // As records keep them: INT64 [2].
  storage::Array ToArray() const;
  static ScreenCounts FromArray(const storage::Array& array);
};

// A TopK dictionary's activations of a few latents at rows near others, exact
// and without computing most latents there. A latent competes only where it can
// reach the k-th place, and of most it is proven that they cannot.
//
// With e the encoder's inputs, w_i a latent's column and P_i(a) its computed
// pre-activation at an anchor a, a row r between two anchors has for any t in
// [0, 1]
//   e_r . w_i <= max(e_a . w_i, e_b . w_i) + |e_r - (1 - t) e_a - t e_b| |w_i|
// (Cauchy and Schwarz). A computed value differs from the true one by rounding:
// that of an encoder's product by at most (3 2^-16 + 3 (d + 8) 2^-24) |e| |w_i|
// (split_matrix.h; full float32 products lose less), that of a row's product by
// less than (d / 16 + 8) 2^-24 |e| |w_i| (row_products.h), adding the bias and
// computing this bound itself by a few 2^-24 of (|e| |w_i| + |b_i|), and the
// distance, also computed, by 2^-22 |e| + 2^-13 of itself. So the value V_i(r)
// that would be computed obeys
//   V_i(r) <= max(P_i(a), P_i(b)) + radius |w_i| + 2^-21 max |b|,
//   radius = (1 + 2^-12) distance + (3 2^-16 + (4 d + 256) 2^-24) max |e|.
// The k latents that lead at the first anchor are computed at every row: the
// smallest of all these values, L, is no larger than the k-th place anywhere in
// the segment. A latent whose bound is below L, or below 0, is out: it neither
// counts nor displaces another. The others are computed at every row and
// compete as ever, the lowest index winning ties.
//
// So answers are those of computing every latent with row_products.h, and agree
// with Dictionary::Encode's within float32 rounding. Subnormal numbers aside.
// Immutable; Activations is called from one thread at a time.
class LatentScreen {
 public:
  // CPU, float32, TopK: where this applies.
  static bool Serves(const dictionary::Dictionary& dictionary);

  // columns: the encoder's, as rows, float32 [d_sae, d_in]. The dictionary
  // outlives this. REQUIRES: Serves.
  LatentScreen(const dictionary::Dictionary& dictionary, at::Tensor columns);

  // x: float32 [rows, d_in] at the dictionary's input -> of each segment in
  // turn [end - begin, latents], one behind the other. Polled between chunks.
  // Errors as Dictionary::Encode's. Adds to counts.
  absl::StatusOr<at::Tensor> Activations(
      const at::Tensor& x, const std::vector<ScreenedSegment>& segments,
      const std::function<absl::Status()>& poll, ScreenCounts* counts) const;

 private:
  struct Scratch;
  struct Anchors;
  bool Screen(const ScreenedSegment& segment, const float* input,
              const Anchors& anchors, Scratch* scratch, float* values) const;
  // A segment whose rows are computed in full, and where their values go.
  struct Whole {
    const ScreenedSegment* segment;
    float* values;
  };
  absl::Status ComputeWhole(const std::vector<Whole>& segments,
                            const at::Tensor& input,
                            const std::function<absl::Status()>& poll) const;

  const dictionary::Dictionary& dictionary_;
  const at::Tensor columns_, lengths_;  // [d_sae, d_in]; [d_sae], rounded up
  const float* bias_;                   // null: none
  float largest_bias_ = 0;
  int64_t d_in_, d_sae_, k_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_LATENT_SCREEN_H_
