#ifndef CUPOLA_SERVER_ANALYSIS_COACTIVATION_H_
#define CUPOLA_SERVER_ANALYSIS_COACTIVATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/pair_measures.h"
#include "server/analysis/sparse_view.h"
#include "server/analysis/token_block.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct CoactivationOptions {
  int64_t latents = 0;
  bool products = true;  // of activations too: kPearson and kCosine need them

  friend bool operator==(const CoactivationOptions&,
                         const CoactivationOptions&) = default;
};

// Another latent and how it goes with the one that was asked about.
struct Partner {
  int64_t latent = 0;
  double value = 0;

  friend bool operator==(const Partner&, const Partner&) = default;
};

// Which latents of a dictionary are active together: for each pair the number
// of tokens at which both are, and the sum of their activations' products, of
// all pairs, exactly. 4 bytes a pair, 12 with products: Bytes(options), which
// is what decides whether it fits; PairSample is for dictionaries where it does
// not.
//
// An Accumulator. Products are added up in float64, so that a long corpus loses
// nothing of its sums; counts have the same bits in whatever order.
class Coactivation {
 public:
  static constexpr uint32_t kVersion = 2;
  static constexpr int64_t kBlockEntries = int64_t{1} << 21;
  // A count is 32 bits wide: Add refuses more tokens than it can hold.
  static constexpr int64_t kMaxTokens = (int64_t{1} << 32) - 1;

  explicit Coactivation(const CoactivationOptions& options);
  static double Bytes(const CoactivationOptions& options);

  // rows.columns == options.latents. RESOURCE_EXHAUSTED beyond kMaxTokens.
  absl::Status Add(const SparseView& rows);
  absl::Status Merge(const Coactivation& other);

  // Body: i64 latents, products, tokens; i64 counts[latents], f64
  // sums[latents], f64 squares[latents]; u32 both[pairs] and, with products,
  // f64 products[pairs], pairs (a, b) with a < b by a, then b; the block of
  // tokens that waits.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

  const CoactivationOptions& options() const { return options_; }
  int64_t tokens() const { return tokens_; }

  // What waits is worked off: call before the methods below.
  void Finish() { WorkOff(); }
  // REQUIRES: finished. Without options.products `products` is 0.
  PairNumbers Of(int64_t a, int64_t b) const;
  // REQUIRES: finished. [latents]: the measure of (latent, other), 0 for
  // itself.
  std::vector<double> Row(PairMeasure measure, int64_t latent) const;
  // REQUIRES: finished. The `m` partners with the largest measure, descending,
  // the lowest index first among equals; never one that was not active together
  // with it.
  std::vector<Partner> Top(PairMeasure measure, int64_t latent,
                           int64_t m) const;

 private:
  static int64_t Pairs(int64_t latents) { return latents * (latents - 1) / 2; }
  // Where the pairs (a, a + 1), (a, a + 2), ... begin.
  int64_t RowBegin(int64_t a) const {
    return a * (2 * options_.latents - a - 1) / 2;
  }
  void WorkOff();
  void AddPairsOf(int64_t latent, const TokenBlock::ByLatent& turned,
                  std::vector<uint32_t>* counts, std::vector<double>* sums);

  const CoactivationOptions options_;
  int64_t tokens_ = 0;
  std::vector<int64_t> counts_;         // [latents]
  std::vector<double> sums_, squares_;  // [latents]
  std::vector<uint32_t> both_;          // [pairs]
  std::vector<double> products_;        // [pairs], or empty
  TokenBlock block_;
};

// The `m` largest in the order of Coactivation::Top.
std::vector<Partner> LargestPartners(std::vector<Partner> partners, int64_t m);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_COACTIVATION_H_
