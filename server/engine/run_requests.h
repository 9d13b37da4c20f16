#ifndef CUPOLA_SERVER_ENGINE_RUN_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_RUN_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/analysis/ablate.h"
#include "server/analysis/intervention.h"
#include "server/engine/requests.h"

// Plain structs of proto/cupola/v1/run.proto and ablate.proto.

namespace cupola::engine {

struct InterventionRequest {
  analysis::Change change = analysis::Change::kZero;
  std::string hook, dictionary;  // one of them, as the change needs
  std::vector<int64_t> heads, neurons;
  Positions positions;
  Array value;  // FLOAT32
  double factor = 1;
  Prompts source;  // of a patch: one, or one per prompt
  Positions source_positions;
  std::vector<uint32_t> latents;
  std::vector<float> values;  // by latent
  bool keep_error = true;
};

struct RunRequest {
  std::string model;
  Prompts prompts;
  std::vector<std::vector<InterventionRequest>> sets;
  Positions positions;
  std::optional<model::Processing> processing;
  bool output = true;
  uint32_t top_logits = 0;
  std::vector<std::vector<uint32_t>> answers;  // none, or one list per prompt
  std::vector<std::string> dictionaries, hooks;
};
struct RunAnswer {
  // One prompt under one set.
  struct Shown {
    Array loss, logprob, rank, top_tokens, top_logits;
    std::vector<SparseArrays> features;  // by dictionary
    std::vector<Array> activations;      // by hook
  };
  std::vector<std::vector<Shown>> variants;  // clean, then by set; [prompt]
  std::vector<std::string> hooks;            // full names
  std::vector<Array> positions;              // [prompt] INT32
  Provenance provenance;
};

struct AblateRequest {
  std::string dictionary;
  Prompts prompts;
  // One per prompt; kAll: the last but one.
  Positions positions;
  std::optional<model::Processing> processing;
  analysis::AblateMode mode = analysis::AblateMode::kSubtract;
  std::vector<uint32_t> latents;  // empty: all active ones
  // Instead of `latents`, of a request that the server makes itself.
  std::vector<std::vector<uint32_t>> prompt_latents;
  std::vector<std::vector<uint32_t>> answers;  // none, or one list per prompt
};
struct AblateAnswer {
  // A row per prompt and latent: prompt INT32, latent UINT32, activation and
  // loss FLOAT32 [rows], logprob FLOAT32 and rank INT32 [rows, answers].
  Array prompt, latent, activation, loss, logprob, rank;
  // Of the prompts as they are and, for kReconstruct, under the full
  // reconstruction: [prompts, 1 or 2] and [prompts, 1 or 2, answers].
  Array base_loss, base_logprob, base_rank;
  Array position;  // INT32 [prompts]
  Provenance provenance;
};

// The dictionaries a request names beside its model: Sources::others.
inline std::vector<std::string> OtherDictionaries(const RunRequest& request) {
  std::vector<std::string> names = request.dictionaries;
  for (const auto& set : request.sets) {
    for (const InterventionRequest& intervention : set) {
      if (!intervention.dictionary.empty()) {
        names.push_back(intervention.dictionary);
      }
    }
  }
  return names;
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_RUN_REQUESTS_H_
