#ifndef CUPOLA_SERVER_ENGINE_DIRECTION_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_DIRECTION_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/analysis/direction_ablation.h"
#include "server/analysis/strength_sweep.h"
#include "server/engine/requests.h"

// Plain structs of proto/cupola/v1/directions.proto.

namespace cupola::engine {

// What a question about moved latents names.
struct DirectionQuestion {
  std::string dictionary, output_dictionary;  // as of a JacobianRequest
  std::optional<Prompts> prompts;             // exactly one of the two
  std::optional<Array> inputs;
  Positions positions;
  std::optional<model::Processing> processing;
  // Given samples, as long as each other; none where they are drawn.
  std::vector<uint32_t> rows, in_latents, out_latents;
  std::vector<float> deltas;  // as many, or none
};

struct DirectionAblationRequest : DirectionQuestion {
  analysis::DirectionAblationOptions options;
};
struct DirectionAblationAnswer {
  // [samples]
  Array row, in_latent, out_latent, delta, before, after, jacobian, kind;
  Array prompt, position;  // [rows]
  double skipped_share = 0;  // of what was to be encoded, with proof
  Provenance provenance;
};

struct SweepRequest : DirectionQuestion {
  analysis::SweepOptions options;
};
struct SweepAnswer {
  // [samples]
  Array row, in_latent, out_latent, strength, last, kind;
  Array slope, intercept, zero_first, zero_last;
  Array curves;            // [samples, points] or [0]
  Array prompt, position;  // [rows]
  double skipped_share = 0;
  Provenance provenance;
};

inline std::vector<std::string> OtherDictionaries(
    const DirectionQuestion& request) {
  if (request.output_dictionary.empty()) return {};
  return {request.output_dictionary};
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DIRECTION_REQUESTS_H_
