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
  std::string model, dictionary;  // the model's name may be left to the other
  Prompts prompts;
  Positions positions;
  std::optional<model::Processing> processing;
  // The decomposition's layer: -1 for the last residual (for latents: theirs).
  analysis::AttributionQuery query;
  bool split_dictionary = false;
  bool mean = false;  // over all rows
};
struct AttributeAnswer {
  std::vector<std::string> components;
  Array values;            // FLOAT32 [rows, components, n]
  Array total;             // FLOAT32 [rows, n]
  Array bias;              // FLOAT32 [n]
  Array prompt, position;  // INT32 [rows]; empty for a mean
  Provenance provenance;
};

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
