#ifndef CUPOLA_SERVER_ANALYSIS_PAIR_SAMPLE_H_
#define CUPOLA_SERVER_ANALYSIS_PAIR_SAMPLE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/coactivation.h"
#include "server/analysis/sparse_view.h"
#include "server/analysis/top_examples.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct PairSampleOptions {
  int64_t latents = 0;
  int64_t sample = 256;  // tokens kept of a latent

  friend bool operator==(const PairSampleOptions&,
                         const PairSampleOptions&) = default;
};

// Which latents are active together, where there are too many for Coactivation:
// 16 bytes for each of `sample` tokens of a latent, whatever the corpus.
//
// Of each latent the tokens with the smallest hashes are kept among those at
// which it was active, all latents with one hash of (row, position). The tokens
// with the smallest hashes in two latents' samples together are a uniform
// sample of the tokens at which either was active, and the fraction in both
// samples estimates their Jaccard index J (Beyer et al., "On synopses for
// distinct-value estimation under multiset operations", 2007): exactly where
// neither was active more than `sample` times, with a standard error of
// sqrt(J (1 - J) / sample) otherwise. Counts follow from it: n_ab =
// (n_a + n_b) J / (1 + J).
//
// An Accumulator; all of it has the same bits in whatever order and parts.
class PairSample {
 public:
  static constexpr uint32_t kVersion = 1;

  explicit PairSample(const PairSampleOptions& options);
  static double Bytes(const PairSampleOptions& options);

  // rows.columns == options.latents. No token is added twice.
  void Add(const SparseView& rows, const TokenPlaces& places);
  absl::Status Merge(const PairSample& other);

  // Body: i64 latents, sample, tokens; i64 counts[latents]; then for each
  // latent `sample` examples as TopExamples writes them, by hash.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

  const PairSampleOptions& options() const { return options_; }
  int64_t tokens() const { return tokens_; }
  // Estimated `both`; exact counts of the two. Sums and products are 0: only
  // the measures of counts can be taken.
  PairNumbers Of(int64_t a, int64_t b) const;

  // For each latent asked about, the `m` partners with the largest measure
  // among those with a token in both samples; the order is Coactivation's. All
  // samples are gone through for every 2^18 tokens of those asked about, which
  // takes memory for these and for twice as many partners as are answered;
  // `poll` is asked meanwhile whether it is still wanted, and what it says is
  // the error. INVALID_ARGUMENT: kPearson, kCosine.
  absl::StatusOr<std::vector<std::vector<Partner>>> Top(
      PairMeasure measure, const std::vector<int64_t>& latents, int64_t m,
      const std::function<absl::Status()>& poll) const;

 private:
  // Of latents[begin, end).
  absl::Status FindPartners(PairMeasure measure,
                            const std::vector<int64_t>& latents, size_t begin,
                            size_t end, int64_t m,
                            const std::function<absl::Status()>& poll,
                            std::vector<std::vector<Partner>>* top) const;
  void Offer(int64_t latent, const Example& token);

  const PairSampleOptions options_;
  int64_t tokens_ = 0;
  std::vector<int64_t> counts_;   // [latents]
  std::vector<Example> samples_;  // [latents, sample], by hash
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_PAIR_SAMPLE_H_
