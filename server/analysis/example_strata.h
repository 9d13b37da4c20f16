#ifndef CUPOLA_SERVER_ANALYSIS_EXAMPLE_STRATA_H_
#define CUPOLA_SERVER_ANALYSIS_EXAMPLE_STRATA_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/top_examples.h"
#include "storage/state_file.h"

namespace cupola::analysis {

// A bounded sample of the tokens at which a latent was weak as well as strong,
// out of which examples of any interval of activations can be drawn when the
// corpus has been read and the latent's maximum is known.
//
// Activations are put in strata: half octaves ([1, 1.5), [1.5, 2) times a power
// of two), the kStrata highest of a latent on their own and all below them in
// one. A stratum keeps the `per_stratum` tokens with the smallest hash of
// (latent, row, position): a uniform sample of its tokens, and the same one in
// whatever order, in however many parts the corpus was read. When a latent's
// maximum grows, strata fall into the lowest: the smallest hashes of a union
// are among those of its parts.
//
// An Accumulator, but for kVersion: its owner's covers its bytes.
class ExampleStrata {
 public:
  static constexpr int64_t kStrata = 10;

  ExampleStrata(int64_t latents, int64_t per_stratum);
  static double Bytes(int64_t latents, int64_t per_stratum);

  // example.value > 0. No token is offered twice.
  void Offer(int64_t latent, const Example& example);

  // Of the tokens kept with low <= value < high, the `n` with the smallest
  // hashes, by hash. They are a uniform sample where the interval ends with
  // strata and n <= per_stratum; where it cuts one, the part of that stratum's
  // sample that lies inside.
  std::vector<Example> Draw(int64_t latent, double low, double high,
                            int64_t n) const;

  // REQUIRES: `other` has the same options.
  void Merge(const ExampleStrata& other);
  // Body: i32 highest[latents], then for each latent and stratum, the lowest
  // first, per_stratum examples as TopExamples writes them, by hash.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

 private:
  Example* Stratum(int64_t latent, int64_t stratum) {
    return &examples_[(latent * (kStrata + 1) + stratum) * per_stratum_];
  }
  void Insert(int64_t latent, int64_t stratum, const Example& example);
  void Raise(int64_t latent, int32_t highest);

  const int64_t latents_, per_stratum_;
  std::vector<int32_t> highest_;   // [latents]: half octave of the maximum
  std::vector<Example> examples_;  // [latents, kStrata + 1, per_stratum]
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_EXAMPLE_STRATA_H_
