#include "server/analysis/run.h"

#include <algorithm>
#include <utility>

#include "server/analysis/changed_passes.h"
#include "server/analysis/run_group.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// The first layer that any set changes.
int FirstLayer(const RunOptions& options, const model::ModelConfig& config) {
  int first = config.n_layers;
  for (const InterventionSet& set : options.sets) {
    for (const Intervention& intervention : set) {
      first = std::min(first, StartLayer(intervention.hook, config));
      if (intervention.on_latents()) {
        first = std::min(first, StartLayer(intervention.hook_in, config));
      }
    }
  }
  return first;
}

}  // namespace

RunAnalysis::RunAnalysis(RunOptions options, Dictionaries dictionaries)
    : options_(std::move(options)), dictionaries_(std::move(dictionaries)) {}

storage::Digest RunAnalysis::Identity(
    const RunOptions& options,
    const std::vector<storage::Digest>& dictionaries) {
  storage::Hasher hasher("run/2");
  hasher.AddInt(options.output)
      .AddInt(options.mean_loss)
      .AddInt(options.answers)
      .AddInt(options.top)
      .AddInt(options.distribution)
      .AddInt(dictionaries.size());
  for (const storage::Digest& digest : dictionaries) hasher.AddDigest(digest);
  hasher.AddInt(options.sets.size());
  for (const InterventionSet& set : options.sets) {
    hasher.AddInt(set.size());
    for (const Intervention& intervention : set) {
      AddToIdentity(intervention, &hasher);
    }
  }
  hasher.AddInt(options.readers.size());
  for (const LatentReader& reader : options.readers) {
    hasher.AddInt(reader.dictionary).AddBytes(model::HookName(reader.hook));
  }
  for (const model::HookPoint& hook : options.hooks) {
    hasher.AddBytes(model::HookName(hook));
  }
  return hasher.Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> RunAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  const model::ModelConfig& config = pass.model->config();
  int64_t longest = 0;
  for (const Placed& placed : sequences) {
    longest = std::max<int64_t>(longest, placed.sequence->tokens.size());
  }
  // What the clean pass keeps and what it and one set show.
  const int64_t per_token =
      KeptBytesPerToken(*pass.model, FirstLayer(options_, config)) +
      2 * RunGroup::BytesPerRow(options_, config, longest);
  std::vector<std::vector<storage::Array>> records;
  for (const std::vector<Placed>& group : GroupsThatFit(sequences, per_token)) {
    ASSIGN_OR_RETURN(std::vector<std::vector<storage::Array>> more,
                     RunGroup(options_, dictionaries_, pass, group).Run());
    std::move(more.begin(), more.end(), std::back_inserter(records));
  }
  return records;
}

}  // namespace cupola::analysis
