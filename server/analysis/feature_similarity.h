#ifndef CUPOLA_SERVER_ANALYSIS_FEATURE_SIMILARITY_H_
#define CUPOLA_SERVER_ANALYSIS_FEATURE_SIMILARITY_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/analysis/sparse_view.h"
#include "server/analysis/token_block.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct FeatureSimilarityOptions {
  int64_t a_latents = 0, b_latents = 0;
  bool float64 = false;  // of the products' sums; else float32

  friend bool operator==(const FeatureSimilarityOptions&,
                         const FeatureSimilarityOptions&) = default;
};

// Which features of two dictionaries are alike: the products A^T B of their
// activations on the same tokens, summed over a corpus without storing one
// (source notebook E). The similarity of two latents is the cosine of their
// columns, not centred: (A^T B)_ij / (||A_i|| ||B_j||), and 0 where one of them
// was never active.
//
// An Accumulator. Sums within 512 tokens of a latent are in float32; those are
// added up in float32, or float64 where asked for. So parts that are merged
// differ from the whole by about 1e-6 of a sum in float64, however long the
// corpus is. In float32 that grows with the square root of the additions, about
// 6e-8 each, and a sum of 2^24 equal terms grows no more: it is for up to a
// million tokens. The memory is Bytes(options)
// and the block of tokens below, which is worked off when it has kBlockEntries
// entries: two of them and a chunk's own at most.
class FeatureSimilarity {
 public:
  static constexpr uint32_t kVersion = 1;
  static constexpr int64_t kBlockEntries = int64_t{1} << 21;

  // `block_entries`: how many are worked off at a time.
  explicit FeatureSimilarity(const FeatureSimilarityOptions& options,
                             int64_t block_entries = kBlockEntries);
  static double Bytes(const FeatureSimilarityOptions& options);

  // The same tokens in both dictionaries. INVALID_ARGUMENT where there are more
  // of one.
  absl::Status Add(const SparseView& a, const SparseView& b);
  absl::Status Merge(const FeatureSimilarity& other);

  // Body: i64 a_latents, b_latents, float64, tokens; of a, then b: i64
  // counts[latents], f64 squares[latents]; i64 1 and the products, f32 or f64
  // [a_latents, b_latents], or i64 0 while there are none; the two blocks of
  // tokens that wait.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);
  // The same where another body follows in the state.
  absl::Status RestorePart(storage::StateReader* state);

  const FeatureSimilarityOptions& options() const { return options_; }
  int64_t tokens() const { return tokens_; }
  // Whether a latent was active at all.
  std::vector<bool> DeadOfA() const { return Dead(a_); }
  std::vector<bool> DeadOfB() const { return Dead(b_); }
  // L2 norms over the tokens.
  std::vector<double> NormsOfA() const { return Norms(a_); }
  std::vector<double> NormsOfB() const { return Norms(b_); }

  // What waits is worked off: call before the methods below.
  void Finish() { WorkOff(); }
  // REQUIRES: finished. float32 [latents, b_latents]: of these latents of A, or
  // of all of them.
  at::Tensor Cosines(absl::Span<const int64_t> latents) const;
  at::Tensor Cosines() const;
  // REQUIRES: finished. The `m` most alike of B for each of them, descending,
  // the lowest index first among equals: indices int64 [latents, m] and values
  // float32 [latents, m], m <= b_latents.
  struct Alike {
    at::Tensor indices, values;
  };
  Alike MostAlike(absl::Span<const int64_t> latents, int64_t m) const;

 private:
  struct Side {
    explicit Side(int64_t latents)
        : counts(latents), squares(latents), block(latents) {}
    std::vector<int64_t> counts;  // [latents]: tokens where active
    std::vector<double> squares;  // [latents]
    TokenBlock block;
  };
  static std::vector<bool> Dead(const Side& side);
  static std::vector<double> Norms(const Side& side);
  static void Count(const SparseView& rows, Side* side);
  void WorkOff();
  // The products take memory when the first of them is computed.
  bool HasProducts() const { return !narrow_.empty() || !wide_.empty(); }
  void Allocate();
  template <typename T>
  void AddProducts(std::vector<T>* products);

  const FeatureSimilarityOptions options_;
  const int64_t block_entries_;
  int64_t tokens_ = 0;
  Side a_, b_;
  std::vector<float> narrow_;  // [a_latents, b_latents], or empty
  std::vector<double> wide_;   // ... with float64
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_FEATURE_SIMILARITY_H_
