#ifndef CUPOLA_SERVER_ANALYSIS_ABLATION_RECORDS_H_
#define CUPOLA_SERVER_ANALYSIS_ABLATION_RECORDS_H_

#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "server/analysis/ablate.h"
#include "server/analysis/readout.h"

namespace cupola::analysis {

// What ablating a group of prompts found, before it is cut into records.
struct AblationFindings {
  // Where latents are taken away: see AblateAnalysis.
  struct Place {
    int64_t prompt = 0;
    std::vector<int64_t> positions;
    int64_t row = 0;   // its first one among all places' positions
    int64_t read = 0;  // the position that is read
    size_t begin = 0;  // its first ablation
    const std::vector<int64_t>* asked = nullptr;  // latents; empty: all active
  };
  // One latent of one place; latent -1: the full reconstruction. Its
  // activations are entries[begin .. end).
  struct Ablation {
    size_t place = 0;
    int32_t latent = -1;
    float activation = 0;  // the largest
    size_t begin = 0, end = 0;
  };
  struct Entry {
    int64_t row = 0;
    float activation = 0;
  };

  std::vector<Place> places;        // by prompt and position
  std::vector<Ablation> ablations;  // by place and latent
  std::vector<Entry> entries;
  // The next token and the answers: [places, width], [ablations, width].
  Readout clean, changed;
  // With AblateOptions::together or later, the losses of all tokens, NaN behind
  // a prompt's last one: float32 [prompts, longest - 1], [ablations, longest -
  // 1].
  at::Tensor clean_losses, changed_losses;
};

// The record of one prompt of `tokens` tokens. Pure.
std::vector<storage::Array> RecordOf(const AblationFindings& findings,
                                     const AblateOptions& options,
                                     int64_t prompt, int64_t tokens);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ABLATION_RECORDS_H_
