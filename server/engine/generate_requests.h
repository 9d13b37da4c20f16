#ifndef CUPOLA_SERVER_ENGINE_GENERATE_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_GENERATE_REQUESTS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/generate.h"
#include "server/engine/requests.h"
#include "server/engine/run_requests.h"

// Plain structs of proto/cupola/v1/generate.proto.

namespace cupola::engine {

// One token as a client is told of it.
struct GeneratedPiece {
  struct Choice {
    int32_t token = 0;
    std::string piece;  // its bytes; need not be valid UTF-8
    float logprob = 0;
  };
  int64_t prompt = 0, sample = 0;
  Choice chosen;
  std::vector<Choice> top;  // the most probable, descending
};

struct GenerateRequest {
  std::string model;
  Prompts prompts;
  std::vector<InterventionRequest> interventions;
  std::optional<model::Processing> processing;
  int64_t max_new_tokens = 0;
  analysis::Sampling sampling;
  uint64_t seed = 0;
  int64_t samples = 1;
  std::optional<std::vector<uint32_t>> stop;  // unset: the model's own
  int64_t top_logprobs = 0;
  // Gets every token, before the answer comes: of one text in order, of several
  // in any. Called on the engine's threads, at times from two at once; must not
  // block. Not OK: nobody wants more of the prompt's texts. May be null.
  std::function<absl::Status(GeneratedPiece)> sink;
};
struct GenerateAnswer {
  struct Text {
    int64_t tokens = 0;
    analysis::Finish finish = analysis::Finish::kLength;
    std::string text;  // decoded behind its prompt, without its stop token
  };
  std::vector<std::vector<Text>> texts;  // [prompt][sample]
  Provenance provenance;
};

inline std::vector<std::string> OtherDictionaries(
    const GenerateRequest& request) {
  std::vector<std::string> names;
  for (const InterventionRequest& intervention : request.interventions) {
    if (!intervention.dictionary.empty()) {
      names.push_back(intervention.dictionary);
    }
  }
  return names;
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_GENERATE_REQUESTS_H_
