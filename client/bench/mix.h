#ifndef CUPOLA_CLIENT_BENCH_MIX_H_
#define CUPOLA_CLIENT_BENCH_MIX_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace cupola::bench {

enum class Kind {
  kFeatures,  // which latents fire
  kAblate,    // every active latent at the last token but one, one at a time
  kRun,       // losses, log-probabilities and ranks
};
inline constexpr int kKinds = 3;
const char* KindName(Kind kind);

struct MixOptions {
  // How often each kind is asked, relative to the others.
  std::array<int64_t, kKinds> weights = {1, 0, 0};
  std::vector<int64_t> lengths = {32};  // tokens; each as often as the others
  double repeat = 0;                    // share of questions asked before
  int64_t repeated_prompts = 64;        // from so many prompts
  int64_t vocabulary = 0;
  uint64_t seed = 0;
};

struct Question {
  Kind kind = Kind::kFeatures;
  bool repeated = false;  // from the set of repeated prompts
  std::vector<uint32_t> tokens;
};

// Which questions a run asks: question `i` is a function of the options and of
// `i`. Prompts are uniformly random token ids, so that two of them are distinct
// unless they are meant to be equal, and no cache has seen them before.
class Mix {
 public:
  // INVALID_ARGUMENT names the field, its value and what is accepted.
  static absl::StatusOr<Mix> Create(MixOptions options);

  Question At(int64_t i) const;

 private:
  explicit Mix(MixOptions options);
  MixOptions options_;
  int64_t total_weight_ = 0;
};

}  // namespace cupola::bench

#endif  // CUPOLA_CLIENT_BENCH_MIX_H_
