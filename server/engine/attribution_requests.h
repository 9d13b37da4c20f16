#ifndef CUPOLA_SERVER_ENGINE_ATTRIBUTION_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_ATTRIBUTION_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/analysis/attribution.h"
#include "server/analysis/quality.h"
#include "server/engine/requests.h"

// Plain structs of proto/cupola/v1/attribution.proto and quality.proto.

namespace cupola::engine {

struct AttributeRequest {
  // The model's name may be left to the dictionary, the latents'.
  std::string model, dictionary;
  // Dictionaries whose output points are split in reconstruction and error.
  std::vector<std::string> splits;
  Prompts prompts;
  Positions positions;
  std::optional<model::Processing> processing;
  // The decomposition's layer: -1 for the last residual (for latents: theirs);
  // its splits and the counts of tokens are not filled in.
  analysis::AttributionQuery query;
  // Of kTokens: one list for all prompts or one for each, all of one length;
  // incorrect: none, or lists as long.
  std::vector<std::vector<int64_t>> tokens, incorrect;
  // Prompts whose mean stands for inactive neurons.
  std::optional<Prompts> reference;
  Positions reference_positions;
};
struct AttributeAnswer {
  std::vector<std::string> components;
  Array values;            // FLOAT32 [rows, components, n]; a mean: one row
  Array total, bias;       // FLOAT32 [rows, n]
  Array prompt, position;  // INT32 [rows]; empty for a mean
  Provenance provenance;
};

// See run_requests.h.
inline const std::vector<std::string>& OtherDictionaries(
    const AttributeRequest& request) {
  return request.splits;
}

struct LogitLensRequest {
  std::string model;
  Prompts prompts;
  Positions positions;
  std::optional<model::Processing> processing;
  std::vector<int64_t> tokens;
  int64_t top = 0;
  bool mids = false;
};
struct LogitLensAnswer {
  std::vector<std::string> residuals;
  Array top_tokens, top_logits;   // [rows, residuals, top]
  Array logits, logprobs, ranks;  // [rows, residuals, tokens]
  Array prompt, position;         // INT32 [rows]
  Provenance provenance;
};

struct QualityRequest {
  std::string dictionary;
  Prompts prompts;
  Positions positions;
  std::optional<model::Processing> processing;
  bool score_every = false;
};
struct QualityAnswer {
  analysis::QualitySummary summary;
  Array losses;                      // FLOAT32 [scored, 3]
  Array loss_prompt, loss_position;  // INT32 [scored]
  Array squared_error, l0;           // FLOAT32 [rows]
  Array prompt, position;            // INT32 [rows]
  Provenance provenance;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ATTRIBUTION_REQUESTS_H_
