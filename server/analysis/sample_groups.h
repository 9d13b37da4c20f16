#ifndef CUPOLA_SERVER_ANALYSIS_SAMPLE_GROUPS_H_
#define CUPOLA_SERVER_ANALYSIS_SAMPLE_GROUPS_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "server/analysis/latent_screen.h"
#include "server/analysis/moved_latents.h"
#include "server/analysis/pair_samples.h"

namespace cupola::analysis {

// Samples that move one latent at one token by the same amount share the moved
// row, and the rows of a token lie near its clean one.
struct SampleGroups {
  // Distinct moves by -delta, in order of their tokens: [m], [m, 1].
  Moves moves;
  // A segment per token, in that order: its moves' rows, and the output latents
  // of its samples. Its anchor is row m + i: the token's clean row.
  std::vector<ScreenedSegment> tokens;
  at::Tensor token;                 // int64 [tokens]: which
  std::vector<int64_t> group, row;  // of each sample: its segment, its move

  // Each sample's value, float32 [samples] on the host, of what LatentReader
  // read of the segments.
  at::Tensor ValuesOf(const PairSamples& samples,
                      const at::Tensor& values) const;
};

// samples: with their deltas.
SampleGroups GroupSamples(const PairSamples& samples);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_SAMPLE_GROUPS_H_
