#include "server/engine/attribution_target.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/encoder_directions.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::AttributionTarget;
using Lists = std::vector<std::vector<int64_t>>;

absl::Status CheckLists(const Lists& lists, size_t length, size_t prompts,
                        const model::ModelConfig& config,
                        const std::string& field) {
  if (lists.size() != 1 && lists.size() != prompts) {
    return InvalidArgumentError(StrCat(field, " has ", lists.size(),
                                       " lists; accepted: one, or ", prompts,
                                       ", one per prompt"));
  }
  for (size_t i = 0; i < lists.size(); ++i) {
    const std::string mine =
        lists.size() == 1 ? field : StrCat(field, "[", i, "]");
    if (lists[i].size() != length) {
      return InvalidArgumentError(
          StrCat(mine, " has ", lists[i].size(), " tokens; accepted: ", length,
                 " as in tokens", lists.size() == 1 ? "" : "[0]"));
    }
    RETURN_IF_ERROR(CheckTokens(lists[i], config, mine));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SettleTokens(const AttributeRequest& request,
                                     const model::ModelConfig& config,
                                     analysis::AttributionQuery* query) {
  const size_t prompts = request.prompts.prompts.size();
  const size_t length = request.tokens.front().size();
  RETURN_IF_ERROR(
      CheckLists(request.tokens, length, prompts, config, "tokens"));
  query->differences = !request.incorrect.empty();
  if (query->differences) {
    RETURN_IF_ERROR(
        CheckLists(request.incorrect, length, prompts, config, "incorrect"));
  }
  if (query->decomposition.layer != config.n_layers ||
      query->decomposition.mlp_input) {
    return InvalidArgumentError(
        StrCat("layer is ", query->decomposition.layer,
               ", but tokens are read from the last residual; accepted: -1, "
               "without mlp_input"));
  }
  query->tokens = static_cast<int64_t>(length);
  return query->tokens;
}

absl::Status CheckInactive(const AttributeRequest& request,
                           const analysis::AttributionQuery& query,
                           bool neurons, const model::ModelConfig& config) {
  const std::vector<int64_t>& shape = query.inactive.shape;
  const bool reference = request.reference.has_value();
  if (shape.empty() && !reference) return absl::OkStatus();
  if (!neurons) {
    return InvalidArgumentError(
        StrCat(reference ? "latents.reference" : "latents.inactive",
               " is for a dictionary on mlp.hook_post; leave it out"));
  }
  if (reference) return absl::OkStatus();
  const int64_t components =
      analysis::ComponentCount(query.decomposition, config);
  if (shape == std::vector<int64_t>{components, config.d_mlp}) {
    return absl::OkStatus();
  }
  return InvalidArgumentError(
      StrCat("latents.inactive has shape [", absl::StrJoin(shape, ", "),
             "]; accepted: [", components, ", ", config.d_mlp, "]"));
}

absl::StatusOr<int64_t> SettleLatents(const AttributeRequest& request,
                                      const Question& question,
                                      const Sources& sources, bool free,
                                      analysis::AttributionQuery* query) {
  if (sources.dictionary == nullptr) {
    return InvalidArgumentError("latents need a dictionary; it is not given");
  }
  const model::ModelConfig& config = sources.model->config();
  analysis::Decomposition& decomposition = query->decomposition;
  const dictionary::Manifest& manifest = sources.dictionary->manifest();
  for (int64_t latent : query->latents) {
    if (latent >= manifest.d_sae) {
      return InvalidArgumentError(StrCat(
          "latents: ", latent, " is not below d_sae = ", manifest.d_sae));
    }
  }
  if (!free) {
    return InvalidArgumentError(
        "layer and mlp_input follow from the latents' dictionary; leave them "
        "out");
  }
  const int64_t latents = static_cast<int64_t>(query->latents.size());
  if (ThroughAttention(question, sources, *query)) {
    RETURN_IF_ERROR(analysis::CheckLinearEncoder(manifest));
    RETURN_IF_ERROR(CheckInactive(request, *query, false, config));
    if (decomposition.level == analysis::ComponentLevel::kNeurons) {
      return InvalidArgumentError(
          "level is NEURONS, but a dictionary on attn.hook_z reads attention; "
          "accepted: LAYERS (the source positions) or HEADS");
    }
    if (!decomposition.splits.empty()) {
      return InvalidArgumentError(
          "split_dictionaries: source positions and heads are no components "
          "of the residual; leave it out");
    }
    return latents;
  }
  ASSIGN_OR_RETURN(
      const analysis::LatentReading reading,
      analysis::ReadingOf(HooksOf(question, sources).first, manifest, config));
  decomposition.layer = reading.layer;
  decomposition.mlp_input = reading.mlp_input;
  RETURN_IF_ERROR(CheckInactive(request, *query, reading.neurons, config));
  return latents;
}

}  // namespace

absl::Status CheckTokens(const std::vector<int64_t>& tokens,
                         const model::ModelConfig& config,
                         absl::string_view field) {
  for (int64_t token : tokens) {
    if (token < 0 || token >= config.d_vocab) {
      return InvalidArgumentError(StrCat(field, ": ", token,
                                         " is outside the vocabulary, 0 to ",
                                         config.d_vocab - 1));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SettleTarget(const AttributeRequest& request,
                                     const Question& question,
                                     const Sources& sources,
                                     analysis::AttributionQuery* query) {
  const model::ModelConfig& config = sources.model->config();
  analysis::Decomposition& decomposition = query->decomposition;
  const bool free = decomposition.layer == -1 && !decomposition.mlp_input;
  if (decomposition.layer == -1) decomposition.layer = config.n_layers;
  switch (query->target) {
    case AttributionTarget::kTokens:
      return SettleTokens(request, config, query);
    case AttributionTarget::kLatents:
      return SettleLatents(request, question, sources, free, query);
    case AttributionTarget::kVectors:
      if (query->vectors.shape.size() != 2 ||
          query->vectors.shape[1] != config.d_model) {
        return InvalidArgumentError(StrCat(
            "vectors has shape [", absl::StrJoin(query->vectors.shape, ", "),
            "]; accepted: [n, ", config.d_model, "]"));
      }
      return query->vectors.shape[0];
    case AttributionTarget::kNone:
      return config.d_model;
  }
  return absl::InternalError("an attribution without a target");
}

std::vector<std::vector<int64_t>> ListsOf(const AttributeRequest& request,
                                          size_t prompt) {
  const auto of = [prompt](const Lists& lists) {
    if (lists.empty()) return std::vector<int64_t>();
    return lists.size() == 1 ? lists.front() : lists[prompt];
  };
  return {of(request.tokens), of(request.incorrect)};
}

bool ThroughAttention(const Question& question, const Sources& sources,
                      const analysis::AttributionQuery& query) {
  return query.target == AttributionTarget::kLatents &&
         HooksOf(question, sources).first.kind == model::HookKind::kZ;
}

}  // namespace cupola::engine
