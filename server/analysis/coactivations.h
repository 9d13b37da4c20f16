#ifndef CUPOLA_SERVER_ANALYSIS_COACTIVATIONS_H_
#define CUPOLA_SERVER_ANALYSIS_COACTIVATIONS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/analysis/coactivation.h"
#include "server/analysis/pair_measures.h"
#include "server/analysis/pair_sample.h"
#include "server/analysis/sparse_view.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct CoactivationsOptions {
  int64_t latents = 0;
  // Of all pairs exactly, or (> 0) of so many sampled tokens of a latent.
  int64_t sample = 0;
  bool products = true;  // exact pairs: of activations too

  friend bool operator==(const CoactivationsOptions&,
                         const CoactivationsOptions&) = default;
};

// INVALID_ARGUMENT names the option, its value and what is accepted.
absl::Status CheckOptions(const CoactivationsOptions& options);

// Which latents of a dictionary are active together, whatever its size: every
// pair (Coactivation) or samples (PairSample). An Accumulator.
class Coactivations {
 public:
  static constexpr uint32_t kVersion = 1;

  // REQUIRES: CheckOptions is OK.
  explicit Coactivations(const CoactivationsOptions& options);
  static double Bytes(const CoactivationsOptions& options);

  // rows.columns == options.latents. No token is added twice.
  // RESOURCE_EXHAUSTED: more tokens than are counted exactly.
  absl::Status Add(const SparseView& rows, const TokenPlaces& places);
  absl::Status Merge(const Coactivations& other);

  // Body: i64 sample, then Coactivation's (0) or PairSample's.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);
  // Before the methods below; more may be added afterwards.
  void Finish();

  const CoactivationsOptions& options() const { return options_; }
  int64_t tokens() const;
  // INVALID_ARGUMENT: the measure needs products, which are not kept.
  absl::Status CheckMeasure(PairMeasure measure) const;
  // See the classes' own. `both` of a sample is an estimate.
  PairNumbers Of(int64_t a, int64_t b) const;
  // For each latent the `m` partners with the largest measure; `poll` is asked
  // meanwhile whether they are still wanted. REQUIRES: CheckMeasure is OK.
  absl::StatusOr<std::vector<std::vector<Partner>>> Top(
      PairMeasure measure, const std::vector<int64_t>& latents, int64_t m,
      const std::function<absl::Status()>& poll) const;

 private:
  const CoactivationsOptions options_;
  std::variant<Coactivation, PairSample> pairs_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_COACTIVATIONS_H_
