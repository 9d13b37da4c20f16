#ifndef CUPOLA_SERVER_ANALYSIS_FEATURE_MATCHING_H_
#define CUPOLA_SERVER_ANALYSIS_FEATURE_MATCHING_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Which feature of one dictionary is which of another (source notebook E): A is
// the one that is explained, there the last checkpoint's, B the other. The
// distance of two features is 1 - their cosine.

namespace cupola::analysis {

// What becomes of features that were never active. Their cosines are 0.
enum class DeadPolicy : uint8_t {
  // As published: the distance of latent i is set to -1 where latent i of A or
  // latent i of B is dead, although B's i is not what A's i was matched with.
  // So they count as matched at every threshold, and of all latents.
  kUpstream = 1,
  // A pair has no distance (NaN) where A's latent is dead or the latent of B
  // that it was matched with: it is matched at no threshold. Fractions are of
  // A's latents that are not dead.
  kCorrect = 2,
};

struct Matching {
  std::vector<int64_t> matched;   // [a]: B's latent, or -1
  std::vector<double> distances;  // [a]; see DeadPolicy; NaN for -1
  int64_t counted = 0;            // what fractions are of
};

// Who is whose, before a policy says what that means.
struct AssignedFeatures {
  std::vector<int64_t> matched;  // [a]: B's latent, or -1
  std::vector<double> cosines;   // [a]: of each pair; 0 for -1
};

// The exact one-to-one assignment with the smallest sum of distances
// (assignment.h). cosines: float32 or float64 [a, b], contiguous, on the CPU.
// Errors: AssignOneToOne's.
absl::StatusOr<AssignedFeatures> AssignFeatures(
    const at::Tensor& cosines, const std::function<absl::Status()>& poll);

// Whether a policy can be had of dictionaries of so many latents:
// INVALID_ARGUMENT for kUpstream where a != b.
absl::Status CheckPolicy(DeadPolicy policy, int64_t a, int64_t b);

// What the policy makes of an assignment. dead_a: [a], dead_b: [b].
// INVALID_ARGUMENT: other lengths, or CheckPolicy's.
absl::StatusOr<Matching> MatchingOf(AssignedFeatures assigned,
                                    const std::vector<bool>& dead_a,
                                    const std::vector<bool>& dead_b,
                                    DeadPolicy policy);

// [thresholds]: the fraction with a distance below each; 0 where nothing is
// counted.
std::vector<double> MatchedFractions(const Matching& matching,
                                     const std::vector<double>& thresholds);

// The latents of A that appear at checkpoint `at` (0 to matchings.size() - 1;
// these are in the order of training): without a distance below the threshold
// at all checkpoints before, with one at all from there on. Ascending.
// REQUIRES: matchings of the same A.
std::vector<int64_t> AppearingFeatures(const std::vector<Matching>& matchings,
                                       int64_t at, double threshold);

// float32 [a]: the cosines of A's decoder rows with those of their matches; NaN
// for latents without one and rows of zeros. a_decoder: [a, width], b_decoder:
// [b, width], on one device. INVALID_ARGUMENT: other widths or lengths.
absl::StatusOr<at::Tensor> DecoderCosines(const at::Tensor& a_decoder,
                                          const at::Tensor& b_decoder,
                                          const std::vector<int64_t>& matched);

// A tensor of B with its latents in A's order: entry i along `axis` is B's
// matched[i]. INVALID_ARGUMENT where a latent of A has no match, or the axis is
// not of B's latents.
absl::StatusOr<at::Tensor> InOrderOf(const std::vector<int64_t>& matched,
                                     const at::Tensor& tensor, int64_t axis);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_FEATURE_MATCHING_H_
