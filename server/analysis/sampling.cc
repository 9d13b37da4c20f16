#include "server/analysis/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "storage/digest.h"

namespace cupola::analysis {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// The lowest token of the largest logit.
int32_t Largest(const float* logits, int64_t n) {
  int32_t best = -1;
  float most = kNone;
  for (int64_t i = 0; i < n; ++i) {
    if (logits[i] > most) {
      most = logits[i];
      best = static_cast<int32_t>(i);
    }
  }
  return best;
}

struct Candidate {
  int32_t token;
  double weight;  // exp(logit / temperature), relative to the largest's
};

// Tokens above -infinity that top_k leaves, ascending.
std::vector<Candidate> Candidates(const float* logits, int64_t n,
                                  const Sampling& sampling, float largest) {
  float least = std::numeric_limits<float>::lowest();
  if (sampling.top_k > 0 && sampling.top_k < n) {
    std::vector<float> sorted;
    sorted.reserve(n);
    for (int64_t i = 0; i < n; ++i) {
      if (logits[i] > kNone) sorted.push_back(logits[i]);
    }
    if (sampling.top_k < static_cast<int64_t>(sorted.size())) {
      const auto kth = sorted.begin() + sampling.top_k - 1;
      std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
      least = *kth;
    }
  }
  std::vector<Candidate> candidates;
  for (int64_t i = 0; i < n; ++i) {
    if (!(logits[i] >= least)) continue;
    // An infinite logit takes all there is.
    const double weight =
        logits[i] == largest
            ? 1
            : std::exp((double{logits[i]} - largest) / sampling.temperature);
    candidates.push_back({static_cast<int32_t>(i), weight});
  }
  return candidates;
}

// Leaves the most probable ones, ascending by token again.
void KeepTopP(double top_p, std::vector<Candidate>* candidates) {
  double total = 0;
  for (const Candidate& candidate : *candidates) total += candidate.weight;
  std::stable_sort(candidates->begin(), candidates->end(),
                   [](const Candidate& a, const Candidate& b) {
                     return a.weight > b.weight;
                   });
  double before = 0;
  size_t kept = 0;
  while (kept < candidates->size() && (kept == 0 || before < top_p * total)) {
    before += (*candidates)[kept++].weight;
  }
  candidates->resize(kept);
  std::sort(
      candidates->begin(), candidates->end(),
      [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
}

// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable
// pseudorandom number generators", 2014), in Stafford's 13th variant: every bit
// of the input moves half of the output's.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

int32_t ChooseToken(const float* logits, int64_t n, const Sampling& sampling,
                    double uniform) {
  const int32_t largest = Largest(logits, n);
  if (largest < 0 || sampling.temperature == 0) return largest;
  std::vector<Candidate> candidates =
      Candidates(logits, n, sampling, logits[largest]);
  if (sampling.top_p < 1) KeepTopP(sampling.top_p, &candidates);
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (uniform * total < sum) return candidate.token;
  }
  return candidates.back().token;
}

double UniformAt(uint64_t key, uint64_t sample, uint64_t step) {
  const uint64_t bits = Mix(Mix(key ^ Mix(sample)) ^ step);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

uint64_t SamplingKey(uint64_t seed, const std::vector<int32_t>& prompt) {
  const storage::Digest digest = storage::Hasher("sampling/1")
                                     .AddInt(static_cast<int64_t>(seed))
                                     .AddInts(prompt.data(), prompt.size())
                                     .Finish();
  uint64_t key;
  std::memcpy(&key, digest.data(), sizeof(key));
  return key;
}

}  // namespace cupola::analysis
