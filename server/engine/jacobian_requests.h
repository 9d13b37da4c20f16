#ifndef CUPOLA_SERVER_ENGINE_JACOBIAN_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_JACOBIAN_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/analysis/jacobian.h"
#include "server/analysis/layers_record.h"
#include "server/engine/requests.h"

// Plain structs of proto/cupola/v1/jacobian.proto.

namespace cupola::engine {

struct JacobianRequest {
  std::string dictionary;          // of the input, or a pair
  std::string output_dictionary;   // empty: the pair's
  std::optional<Prompts> prompts;  // exactly one of the two
  std::optional<Array> inputs;
  Positions positions;
  std::optional<model::Processing> processing;
  analysis::JacobianOptions options;
  // Attention patterns and norm scales held.
  bool frozen = false;
  // Where the input latents are; `source_positions` if they are given.
  analysis::SourceRule source_rule = analysis::SourceRule::kSame;
  Positions source_positions;
};
struct JacobianAnswer {
  Array in_latents, in_acts, out_latents, out_acts;
  Array values, indptr, indices, second_order, mlp_output, gradients;
  Array prompt, position, source_position;
  int64_t columns = 0;
  std::string output_dictionary;
  storage::Digest output_digest{};
  Provenance provenance;
};

// The dictionaries a request names beside its first one: Sources::others.
inline std::vector<std::string> OtherDictionaries(
    const JacobianRequest& request) {
  if (request.output_dictionary.empty()) return {};
  return {request.output_dictionary};
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JACOBIAN_REQUESTS_H_
