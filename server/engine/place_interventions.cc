#include "server/engine/place_interventions.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/engine/dictionary_name.h"
#include "server/engine/mean_store.h"
#include "server/engine/prompt_resolution.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::Change;
using analysis::Intervention;
using analysis::PlacedIntervention;

// Latents ascending and unique, their values with them.
absl::Status SetLatents(const InterventionRequest& request,
                        const std::string& field, Intervention* intervention) {
  std::map<int32_t, float> by_latent;
  for (size_t i = 0; i < request.latents.size(); ++i) {
    const auto latent = static_cast<int32_t>(request.latents[i]);
    const float value = request.values.empty() ? 0 : request.values[i];
    const auto [found, added] = by_latent.try_emplace(latent, value);
    if (!added && found->second != value) {
      return InvalidArgumentError(StrCat(field, ".latents: ", latent,
                                         " is set to ", found->second,
                                         " and to ", value));
    }
  }
  for (const auto& [latent, value] : by_latent) {
    intervention->latents.push_back(latent);
    intervention->values.push_back(value);
  }
  return absl::OkStatus();
}

// A patch's source on one prompt.
absl::Status PlaceSource(const std::vector<int32_t>& source,
                         const std::vector<int64_t>* source_positions,
                         const std::vector<int32_t>& prompt,
                         const std::string& field,
                         std::vector<int64_t> positions,
                         PlacedIntervention* placed) {
  placed->source = source;
  if (source_positions == nullptr) {
    if (source.size() != prompt.size()) {
      return InvalidArgumentError(StrCat(
          field, ".source: ", source.size(), " tokens for a prompt of ",
          prompt.size(), "; accepted: as many, or with source_positions"));
    }
    placed->source_positions = placed->positions;
    return absl::OkStatus();
  }
  if (source_positions->size() != positions.size()) {
    return InvalidArgumentError(
        StrCat(field, ".source_positions: ", source_positions->size(), " for ",
               positions.size(), " positions; accepted: as many"));
  }
  // In the order of the positions, which are sorted and unique.
  std::map<int64_t, int64_t> pairs;
  for (size_t i = 0; i < positions.size(); ++i) {
    if (!pairs.try_emplace(positions[i], (*source_positions)[i]).second) {
      return InvalidArgumentError(StrCat(field, ".positions: ", positions[i],
                                         " comes twice beside "
                                         "source_positions"));
    }
  }
  for (const auto& [position, from] : pairs) {
    placed->source_positions.push_back(from);
  }
  return absl::OkStatus();
}

// The value of an intervention that names a stored mean.
absl::Status TakeMean(const std::string& name, const std::string& field,
                      model::Processing processing, const Sources& sources,
                      Intervention* intervention) {
  if (sources.means == nullptr) {
    return InvalidArgumentError(
        StrCat(field, ".value: \"", name, "\": this server stores no means"));
  }
  const absl::StatusOr<MeanStore::Found> found =
      sources.means->Find({sources.model->digest(), processing,
                           model::HookName(intervention->hook), name});
  if (absl::IsNotFound(found.status())) {
    return InvalidArgumentError(
        StrCat(field, ".value: ", found.status().message()));
  }
  if (!found.ok()) return InField(field + ".value", found.status());
  const std::vector<int64_t> shape =
      model::HookShape(intervention->hook, sources.model->config());
  if (found->value.shape != shape) {
    return InvalidArgumentError(StrCat(
        field, ".value: the mean \"", name, "\" of ", found->info.key.hook,
        " has shape [", absl::StrJoin(found->value.shape, ", "),
        "]; accepted: [", absl::StrJoin(shape, ", "), "], as ",
        model::HookName(intervention->hook), " has"));
  }
  intervention->value = found->value;
  return absl::OkStatus();
}

// Which row of a value with a row per position goes where.
absl::Status PlaceRows(const Intervention& intervention,
                       const std::string& field, size_t prompt,
                       const std::vector<int64_t>& positions,
                       PlacedIntervention* placed) {
  const size_t rows = intervention.value.shape.front();
  if (rows != positions.size()) {
    return InvalidArgumentError(
        StrCat(field, ".value: ", rows, " rows for ", positions.size(),
               " positions of prompt ", prompt, "; accepted: as many, or one"));
  }
  std::map<int64_t, int64_t> by_position;
  for (size_t i = 0; i < rows; ++i) {
    if (!by_position.try_emplace(positions[i], i).second) {
      return InvalidArgumentError(StrCat(field, ".positions: ", positions[i],
                                         " comes twice beside a value for each "
                                         "position"));
    }
  }
  for (const auto& [position, row] : by_position) {
    placed->value_rows.push_back(row);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int> NamedDictionaries::Index(const std::string& name,
                                             const std::string& field) {
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found != names_.end()) return static_cast<int>(found - names_.begin());
  const Sources::Other& other = sources_.others.at(name);
  if (other.model_name != sources_.model_name) {
    return InvalidArgumentError(
        StrCat(field, ": \"", name, "\" belongs to model \"", other.model_name,
               "\"; accepted: a dictionary of \"", sources_.model_name, "\""));
  }
  ASSIGN_OR_RETURN(const DictionaryUse use,
                   UseOf(name, other.dictionary->manifest()));
  names_.push_back(name);
  uses_.push_back(use);
  return static_cast<int>(names_.size()) - 1;
}

const dictionary::Manifest& NamedDictionaries::manifest(int index) const {
  return sources_.others.at(names_[index]).dictionary->manifest();
}

std::vector<storage::Digest> NamedDictionaries::Digests() const {
  std::vector<storage::Digest> digests;
  for (size_t i = 0; i < names_.size(); ++i) {
    digests.push_back(
        storage::Hasher("half/1")
            .AddDigest(sources_.others.at(names_[i]).dictionary->digest())
            .AddInt(static_cast<int64_t>(uses_[i].half))
            .Finish());
  }
  return digests;
}

std::vector<storage::Digest> NamedDictionaries::FileDigests() const {
  std::vector<storage::Digest> digests;
  for (const std::string& name : names_) {
    digests.push_back(sources_.others.at(name).dictionary->digest());
  }
  return digests;
}

absl::StatusOr<Intervention> MakeIntervention(
    const InterventionRequest& request, const std::string& field,
    model::Processing processing, const Sources& sources,
    NamedDictionaries* dictionaries) {
  const model::ModelConfig& config = sources.model->config();
  Intervention intervention;
  intervention.change = request.change;
  intervention.heads = request.heads;
  intervention.neurons = request.neurons;
  intervention.value = request.value;
  intervention.factor = request.factor;
  intervention.keep_error = request.keep_error;
  const dictionary::Manifest* manifest = nullptr;
  if (intervention.on_latents()) {
    ASSIGN_OR_RETURN(
        intervention.dictionary,
        dictionaries->Index(request.dictionary, field + ".dictionary"));
    manifest = &dictionaries->manifest(intervention.dictionary);
    std::tie(intervention.hook_in, intervention.hook) =
        HooksOf(*manifest, dictionaries->half(intervention.dictionary));
    RETURN_IF_ERROR(SetLatents(request, field, &intervention));
  } else {
    absl::StatusOr<model::HookPoint> hook =
        model::ParseHookPoint(request.hook, config);
    if (!hook.ok()) {
      // A point that the family lacks is a bad intervention, not a missing
      // entry.
      return InvalidArgumentError(
          StrCat(field, ".hook: ", hook.status().message()));
    }
    intervention.hook = *hook;
    if (!request.mean.empty()) {
      RETURN_IF_ERROR(
          TakeMean(request.mean, field, processing, sources, &intervention));
    }
    analysis::FitValue(config, &intervention);
  }
  RETURN_IF_ERROR(
      analysis::CheckIntervention(intervention, manifest, config, field));
  return intervention;
}

absl::StatusOr<std::vector<PlacedIntervention>> PlaceIntervention(
    const InterventionRequest& request, const std::string& field,
    const Intervention& intervention,
    const std::vector<std::vector<int32_t>>& token_ids, const Sources& sources,
    const Limits& limits) {
  const auto resolved = ResolvePositions(request.positions, token_ids);
  if (!resolved.ok()) return InField(field, resolved.status());
  const bool patch = intervention.change == Change::kPatch;
  std::vector<std::vector<int32_t>> sources_ids;
  std::vector<std::vector<int64_t>> source_positions;
  const bool positioned =
      request.source_positions.kind != Positions::Kind::kAll;
  if (patch) {
    auto prompts = ResolvePrompts(request.source, std::nullopt, *sources.model,
                                  limits.max_tokens);
    if (!prompts.ok()) return InField(field + ".source", prompts.status());
    sources_ids = std::move(prompts->token_ids);
    if (sources_ids.size() == 1)
      sources_ids.resize(token_ids.size(), sources_ids[0]);
    if (sources_ids.size() != token_ids.size()) {
      return InvalidArgumentError(StrCat(field, ".source: ", sources_ids.size(),
                                         " prompts; accepted: 1 or ",
                                         token_ids.size(), ", one per prompt"));
    }
    auto from = ResolvePositions(request.source_positions, sources_ids);
    if (!from.ok()) {
      return InField(field + ".source_positions", from.status());
    }
    source_positions = *std::move(from);
  }
  std::vector<PlacedIntervention> placed;
  for (size_t i = 0; i < token_ids.size(); ++i) {
    PlacedIntervention& mine = placed.emplace_back();
    const std::set<int64_t> sorted((*resolved)[i].begin(),
                                   (*resolved)[i].end());
    mine.intervention = &intervention;
    mine.positions.assign(sorted.begin(), sorted.end());
    if (intervention.per_position) {
      RETURN_IF_ERROR(PlaceRows(intervention, field, i, (*resolved)[i], &mine));
    }
    if (!patch) continue;
    RETURN_IF_ERROR(PlaceSource(sources_ids[i],
                                positioned ? &source_positions[i] : nullptr,
                                token_ids[i], field, (*resolved)[i], &mine));
  }
  return placed;
}

}  // namespace cupola::engine
