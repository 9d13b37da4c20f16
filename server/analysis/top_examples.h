#ifndef CUPOLA_SERVER_ANALYSIS_TOP_EXAMPLES_H_
#define CUPOLA_SERVER_ANALYSIS_TOP_EXAMPLES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "storage/state_file.h"

namespace cupola::analysis {

// One token at which a latent was active. An empty place: value 0.
struct Example {
  float value = 0;
  int32_t position = 0;
  int64_t row = 0;

  friend bool operator==(const Example&, const Example&) = default;
};

// Whether `a` is the better example: the larger value, then the lower row, then
// the lower position.
inline bool Better(const Example& a, const Example& b) {
  if (a.value != b.value) return a.value > b.value;
  return a.row != b.row ? a.row < b.row : a.position < b.position;
}

// The `k` best examples of each of many latents; with `distinct_rows`, of each
// row its best one only. They do not depend on the order in which examples
// come. An Accumulator, but for kVersion: its owner's covers its bytes.
class TopExamples {
 public:
  TopExamples(int64_t latents, int64_t k, bool distinct_rows);
  static double Bytes(int64_t latents, int64_t k);

  // example.value > 0. An example that was offered before is not offered again.
  void Offer(int64_t latent, const Example& example);
  // The best first.
  std::vector<Example> Of(int64_t latent) const;

  // REQUIRES: `other` has the same options.
  void Merge(const TopExamples& other);
  // Body: for each latent k times f32 value, i32 position, i64 row; the best
  // first, empty places last.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

 private:
  const int64_t latents_, k_;
  const bool distinct_rows_;
  std::vector<Example> examples_;  // [latents, k], each in the order of Of
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_TOP_EXAMPLES_H_
