#ifndef CUPOLA_SERVER_ENGINE_WEIGHT_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_WEIGHT_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/analysis/latent_weights.h"
#include "server/engine/requests.h"

// Plain structs of proto/cupola/v1/weights.proto.

namespace cupola::engine {

struct WeightRequest {
  std::string model, dictionary;  // exactly one
  std::string name;
  std::vector<int64_t> rows, columns;  // >= 0; empty: all
  std::optional<model::Processing> processing;
};
struct WeightAnswer {
  std::string name;  // canonical
  Array values;
  Array shape;  // of the whole tensor: INT64 [axes]
  Provenance provenance;
};

struct LatentWeightsRequest {
  std::string dictionary;
  std::optional<model::Processing> processing;
  // Nearest, tokens: counts that are 0 stand for the defaults.
  analysis::LatentQuery query;
};
struct LatentWeightsAnswer {
  Array indices, values;
  Array histogram, ends;  // of logit weights; else [0]
  Provenance provenance;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_WEIGHT_REQUESTS_H_
