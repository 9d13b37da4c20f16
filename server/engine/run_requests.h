#ifndef CUPOLA_SERVER_ENGINE_RUN_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_RUN_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/analysis/ablate.h"
#include "server/analysis/boosts.h"
#include "server/analysis/intervention.h"
#include "server/engine/requests.h"

// Plain structs of proto/cupola/v1/run.proto and ablate.proto.

namespace cupola::engine {

// Where an intervention without positions acts while a text is generated.
enum class Scope { kAll, kPrompt, kGenerated };

struct InterventionRequest {
  analysis::Change change = analysis::Change::kZero;
  std::string hook, dictionary;  // one of them, as the change needs
  std::vector<int64_t> heads, neurons;
  Positions positions;
  Scope scope = Scope::kAll;
  Array value;       // FLOAT32, in its own shape; or
  std::string mean;  // the name of a stored mean instead
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
  bool mean_loss = false;
  uint32_t top_logits = 0;
  std::vector<std::vector<uint32_t>> answers;  // none, or one list per prompt
  std::vector<std::string> dictionaries, hooks;
  std::optional<analysis::BoostOptions> boosts;
};
struct RunAnswer {
  // Of the clean run, then of each set: [variants, rows] or, of mean losses,
  // [variants, prompts]; [variants, rows, answers]; [variants, rows, top].
  int64_t variants = 0;
  Array loss, logprob, rank, top_tokens, top_logits;
  std::vector<SparseArrays> features;  // by dictionary: [variants * rows]
  // FLOAT32 [n], by hook: each variant's, prompt's and position's values, whose
  // shape is as in Question::shapes.
  struct Values {
    std::string hook;  // full name
    std::vector<int64_t> shape;
    Array values;
  };
  std::vector<Values> activations;
  std::optional<analysis::BoostTable> boosts;
  Array prompt, position;  // INT32 [rows]
  // Of the dictionaries that sets and readers name, each once, in the order in
  // which they are first named.
  std::vector<storage::Digest> dictionary_digests;
  Provenance provenance;
};

struct AblateRequest {
  std::string dictionary;
  Prompts prompts;
  // kAll: the last but one, or all of them `together`.
  Positions positions;
  std::optional<model::Processing> processing;
  analysis::AblateMode mode = analysis::AblateMode::kSubtract;
  std::vector<uint32_t> latents;  // empty: all active ones
  // Instead of `latents`, of a request that the server makes itself.
  std::vector<std::vector<uint32_t>> prompt_latents;
  // Instead of positions and latents: each latent at its own position.
  struct Target {
    uint32_t prompt = 0;
    int64_t position = 0;
    uint32_t latent = 0;
  };
  std::vector<Target> targets;
  std::vector<std::vector<uint32_t>> answers;  // none, or one list per prompt
  bool together = false, later = false;
};
struct AblateAnswer {
  // A row per place and latent, analysis::AblateAnalysis says what a place is:
  // prompt and position INT32, latent UINT32, place INT32 (its row among the
  // bases), activation and loss FLOAT32 [rows], logprob FLOAT32 and rank INT32
  // [rows, answers].
  Array prompt, latent, position, place, activation, loss, logprob, rank;
  // Of the places as they are and, for kReconstruct, under the full
  // reconstruction: [places, 1 or 2] and [places, 1 or 2, answers].
  Array base_loss, base_logprob, base_rank;
  // With `later`: FLOAT32 [rows], [rows, longest - 1], [places, 1 or 2],
  // [places, 1 or 2, longest - 1].
  bool later = false;
  Array later_loss, losses, base_later_loss, base_losses;
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
